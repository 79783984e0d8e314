//! One archive entry and its bytes.

use super::{Error, display};

/// The largest file the format can carry: 4 GiB − 1.
pub const MAX_FILE_SIZE: u64 = u32::MAX as u64;

/// `PATH_MAX` of Linux: the longest name or link target, with its NUL.
const PATH_MAX: usize = 4096;
/// `NAME_MAX` of tmpfs and ramfs, which an initramfs is unpacked into.
const NAME_MAX: usize = 255;
/// Length of the fixed part of an entry.
const HEADER_SIZE: usize = 110;
/// Every part of an entry begins at a multiple of this.
const ALIGNMENT: usize = 4;
/// Name of the last entry of an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

const S_IFSOCK: u32 = 0o140_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFIFO: u32 = 0o010_000;

/// Permissions, owner and time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The lower 12 bits of `st_mode`: permissions, set-user-ID, set-group-ID and sticky bit. Other bits are ignored.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970. Linux applies it when built with `CONFIG_INITRAMFS_PRESERVE_MTIME`.
    pub mtime: u32,
}

impl Attributes {
    /// The given permissions, owned by root, modified at the epoch.
    pub const fn new(mode: u16) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
        }
    }
}

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// A character device.
    Character {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file whose `size` bytes, and [`padding_after`] them, follow the encoded entry.
    File {
        /// Bytes that follow. 0 for all names but the last of a file with several names.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// The target, as bytes, without NUL.
        target: &'a [u8],
    },
    /// A device node, FIFO or socket.
    Device(Device),
}

/// One entry, for callers that number inodes themselves; others use [`super::Writer`].
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Name relative to the root, without leading slash.
    pub name: &'a [u8],
    /// Inode number. Entries with the same number and `links` of at least 2 are names of one file.
    pub inode: u32,
    /// How many names the file has.
    pub links: u32,
    /// Permissions, owner and time.
    pub attributes: Attributes,
    /// What it is.
    pub kind: Kind<'a>,
}

impl Entry<'_> {
    /// The bytes of the entry up to where the contents of a regular file begin; for everything else, all of them.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let (file_type, device, body) = match self.kind {
            Kind::Directory => (S_IFDIR, (0, 0), &[][..]),
            Kind::File { .. } => (S_IFREG, (0, 0), &[][..]),
            Kind::Symlink { target } => (S_IFLNK, (0, 0), target),
            Kind::Device(Device::Character { major, minor }) => (S_IFCHR, (major, minor), &[][..]),
            Kind::Device(Device::Block { major, minor }) => (S_IFBLK, (major, minor), &[][..]),
            Kind::Device(Device::Fifo) => (S_IFIFO, (0, 0), &[][..]),
            Kind::Device(Device::Socket) => (S_IFSOCK, (0, 0), &[][..]),
        };
        let size = match self.kind {
            Kind::File { size } => size,
            _ => body.len() as u64,
        };
        let Attributes {
            mode,
            uid,
            gid,
            mtime,
        } = self.attributes;
        let links = if self.kind == Kind::Directory {
            self.links.max(2)
        } else {
            self.links
        };
        let mut bytes = Vec::with_capacity(HEADER_SIZE + self.name.len() + body.len() + 2 * ALIGNMENT);
        bytes.extend_from_slice(b"070701");
        for field in [
            u64::from(self.inode),
            u64::from(file_type | u32::from(mode & 0o7777)),
            u64::from(uid),
            u64::from(gid),
            u64::from(links),
            u64::from(mtime),
            size,
            0, // device that holds the file: major and minor
            0,
            u64::from(device.0),
            u64::from(device.1),
            self.name.len() as u64 + 1,
            0, // checksum, unused in this variant of the format
        ] {
            push_hex(&mut bytes, field);
        }
        bytes.extend_from_slice(self.name);
        bytes.push(0);
        pad(&mut bytes);
        bytes.extend_from_slice(body);
        pad(&mut bytes);
        Ok(bytes)
    }

    /// Bytes that the entry takes in an archive, with contents and padding, if it can be encoded.
    pub fn size(&self) -> u64 {
        let body = match self.kind {
            Kind::File { size } => size,
            Kind::Symlink { target } => target.len() as u64,
            Kind::Directory | Kind::Device(_) => 0,
        };
        let head = (HEADER_SIZE + self.name.len() + 1).next_multiple_of(ALIGNMENT) as u64;
        head.saturating_add(body)
            .saturating_add(padding_after(body).len() as u64)
    }

    fn check(&self) -> Result<(), Error> {
        let name = || display(self.name);
        let is_bad = self.name.is_empty()
            || self.name.starts_with(b"/")
            || self.name.contains(&0)
            || self.name == TRAILER;
        if is_bad {
            return Err(Error::Name(name()));
        }
        let longest = self.name.split(|byte| *byte == b'/').map(<[u8]>::len).max();
        if self.name.len() >= PATH_MAX || longest > Some(NAME_MAX) {
            return Err(Error::NameTooLong(name()));
        }
        match self.kind {
            Kind::File { size } if size > MAX_FILE_SIZE => Err(Error::FileTooLarge { name: name(), size }),
            Kind::Symlink { target } if !is_link_target(target) => Err(Error::LinkTarget(name())),
            Kind::Device(Device::Character { major, minor } | Device::Block { major, minor })
                if major >= 1 << 12 || minor >= 1 << 20 =>
            {
                Err(Error::DeviceNumber(name()))
            }
            _ => Ok(()),
        }
    }
}

/// The zeros that follow `size` bytes of file contents.
pub fn padding_after(size: u64) -> &'static [u8] {
    const ZEROS: [u8; 3] = [0; 3];
    match size % 4 {
        1 => &ZEROS,
        2 => &ZEROS[..2],
        3 => &ZEROS[..1],
        _ => &[],
    }
}

/// The entry that ends an archive.
pub fn trailer() -> Vec<u8> {
    let mut bytes = b"070701".to_vec();
    for field in [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, TRAILER.len() as u64 + 1, 0] {
        push_hex(&mut bytes, field);
    }
    bytes.extend_from_slice(TRAILER);
    bytes.push(0);
    pad(&mut bytes);
    bytes
}

fn is_link_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() < PATH_MAX && !target.contains(&0)
}

/// Appends a field as 8 hexadecimal digits. Callers pass values of at most 32 bits.
fn push_hex(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(format!("{value:08X}").as_bytes());
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
}
