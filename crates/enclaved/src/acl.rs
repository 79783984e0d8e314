//! One entry in a directory's access control list, in the form that the kernel has for it (`include/uapi/linux/posix_acl_xattr.h`).

use std::io;
use std::path::Path;

use rustix::fs::XattrFlags;

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
/// Of entries that name nobody.
const UNDEFINED_ID: u32 = u32::MAX;

const READ: u16 = 4;
const SEARCH: u16 = 1;

/// Tags of entries (`include/uapi/linux/posix_acl.h`).
mod tag {
    pub(super) const USER_OBJ: u16 = 0x01;
    pub(super) const USER: u16 = 0x02;
    pub(super) const GROUP_OBJ: u16 = 0x04;
    pub(super) const MASK: u16 = 0x10;
    pub(super) const OTHER: u16 = 0x20;
}

/// Lets user `id`, beyond those that `mode` lets, look up names in `directory`, but neither list nor change it. `mode` is what
/// the directory has otherwise; its bits for the group become the most that any but the owner may do.
///
/// # Errors
/// If the file system has no access control lists, or what else the kernel says.
pub(crate) fn let_user_search(directory: &Path, mode: u32, id: u32) -> io::Result<()> {
    let bits = |shift: u32| u16::try_from(mode >> shift & 0o7).unwrap_or_default();
    let entries = [
        (tag::USER_OBJ, bits(6), UNDEFINED_ID),
        (tag::USER, SEARCH, id),
        (tag::GROUP_OBJ, bits(3), UNDEFINED_ID),
        (tag::MASK, bits(3) & (READ | SEARCH) | SEARCH, UNDEFINED_ID),
        (tag::OTHER, bits(0), UNDEFINED_ID),
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    rustix::fs::setxattr(directory, "system.posix_acl_access", &list, XattrFlags::empty())?;
    Ok(())
}
