//! What this process can reach outside of itself: one directory, and nothing else of the machine.
//!
//! The daemon starts the VMM as root in the enclave's directory. The first thing that the VMM does, before it has read anything, is
//! to go where it stays:
//!
//! ```text
//!   1  no descriptor but standard input, output and error ([`close_other_descriptors`])
//!   2  network, IPC and UTS namespaces of its own: no interface, no abstract socket, no System V object of the machine's
//!   3  a mount namespace of its own with one mount: the enclave's directory, read-only, without devices and programs; what the VMM
//!      does by name, connecting to `vsock.sock_<port>`, is done there
//!   4  its memory stays out of swap: what there is now, and from when guest memory is mapped on ([`lock_later_memory`]) all that comes
//!   5  a user and group of its own, no further groups, no capability, and none to be had
//!   6  a session keyring of its own: none of the keys of whoever has started the daemon
//! ```
//!
//! What stays reachable is what descriptors reach that the daemon sends afterwards. None of them is of a directory: that would lead
//! out.
//!
//! A machine may be unable to give one of these [`Layer`]s. That is an error, unless the operator has allowed it to be missing. A
//! namespace of processes is not among them ([0025](../../../docs/decisions/0025-jail-of-a-vmm.md)).

use std::io;

use api::sandbox::Layer;
use rustix::fs::{CWD, Gid, Uid};
use rustix::io::Errno;
use rustix::mm::MlockAllFlags;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    mount_remount, move_mount, open_tree, unmount,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use crate::log;

/// The first descriptor that is not one of the standard ones.
const FIRST_DESCRIPTOR: libc::c_uint = 3;

/// Where the process is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Jail {
    /// The user, and the group of the same number, that it is to be.
    pub user: Option<u32>,
    /// What need not be there.
    pub may_be_missing: Vec<Layer>,
}

/// The process cannot be held as it must.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Layers that this machine does not give.
    #[error(
        "the VMM's sandbox lacks {}; if it is to run all the same, start enclaved with --allow-missing {}",
        in_words(.0), names(.0)
    )]
    Missing(Vec<(Layer, Errno)>),
    /// Something else that cannot fail.
    #[error("the VMM's sandbox cannot be made: {what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the operating system said.
        source: Errno,
    },
}

/// `network-namespace (Operation not permitted), …`
fn in_words(missing: &[(Layer, Errno)]) -> String {
    let each = missing.iter().map(|(layer, why)| format!("{layer} ({why})"));
    each.collect::<Vec<_>>().join(", ")
}

fn names(missing: &[(Layer, Errno)]) -> String {
    let names = missing.iter().map(|(layer, _)| layer.name());
    names.collect::<Vec<_>>().join(",")
}

impl Jail {
    /// Goes there, for good. There must be no other thread yet.
    ///
    /// # Errors
    /// [`JailError`]. The process is then held less than it should be, and must do nothing but say so.
    pub fn enter(&self) -> Result<(), JailError> {
        let mut missing = leave_namespaces();
        let mut had =
            |layer, outcome: Result<(), Errno>| missing.extend(outcome.err().map(|why| (layer, why)));
        had(Layer::EmptyRoot, leave_file_systems());
        had(Layer::LockedMemory, lock_memory());
        if self.user.is_none() {
            had(Layer::OwnUser, Err(Errno::PERM));
        }
        self.permit(missing)?;
        forget_privileges(self.user)?;
        leave_keyrings().map_err(system("leaving the keys of whoever started the daemon"))
    }

    fn permit(&self, missing: Vec<(Layer, Errno)>) -> Result<(), JailError> {
        let (permitted, missing): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|(layer, _)| self.may_be_missing.contains(layer));
        if !missing.is_empty() {
            return Err(JailError::Missing(missing));
        }
        if !permitted.is_empty() {
            let lacks = in_words(&permitted);
            log::line(format_args!("the VMM's sandbox lacks {lacks}, as allowed"));
        }
        Ok(())
    }
}

fn system(what: &'static str) -> impl Fn(Errno) -> JailError {
    move |source| JailError::System { what, source }
}

/// Closes what whoever started the daemon may have left open in it. This process must not have opened anything yet.
///
/// # Errors
/// On a Linux older than 5.9.
#[expect(unsafe_code, reason = "descriptors that nobody has cannot be closed safely")]
pub fn close_other_descriptors() -> Result<(), JailError> {
    // SAFETY: there is no owner of what is closed.
    let outcome = unsafe { libc::close_range(FIRST_DESCRIPTOR, libc::c_uint::MAX, 0) };
    if outcome == 0 {
        return Ok(());
    }
    Err(system("closing descriptors")(last_error()))
}

/// Which namespaces could not be had.
fn leave_namespaces() -> Vec<(Layer, Errno)> {
    const NAMESPACES: [(Layer, UnshareFlags); 3] = [
        (Layer::NetworkNamespace, UnshareFlags::NEWNET),
        (Layer::IpcNamespace, UnshareFlags::NEWIPC),
        (Layer::UtsNamespace, UnshareFlags::NEWUTS),
    ];
    let all = NAMESPACES.into_iter().map(|(_, flag)| flag).collect();
    if unshare(all).is_ok() {
        return Vec::new();
    }
    let each = NAMESPACES.into_iter();
    each.filter_map(|(layer, flag)| Some((layer, unshare(flag).err()?)))
        .collect()
}

#[expect(unsafe_code, reason = "a table of descriptors could be left as well")]
fn unshare(namespaces: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: the table of descriptors is not among them.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// The working directory becomes all that there is.
fn leave_file_systems() -> Result<(), Errno> {
    unshare(UnshareFlags::NEWNS)?;
    // What is mounted and unmounted here must not be so elsewhere.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let root = open_tree(
        CWD,
        ".",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )?;
    // A root must be mounted somewhere before it is one.
    move_mount(&root, "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&root)?;
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC
        | MountFlags::NOATIME;
    mount_remount(".", flags, "")?;
    // The old root comes to lie upon the new one (pivot_root(2), "pivot_root(".", ".")"), and everything that is mounted goes with it.
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Guest memory is in hugepages, which are never swapped; what passes through this process's own memory must not be either. Pages
/// are taken when they are touched, as ever.
///
/// Memory that is mapped later is not locked yet: the kernel would take all hugepages of guest memory as soon as they are mapped, from
/// any node, since it forgets for hugepages that locked memory is to be taken when it is touched (`mmap_region`, Linux 6.12).
fn lock_memory() -> Result<(), Errno> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    // With a limit, guest memory could not be mapped afterwards. What there may be in all is limited elsewhere.
    rustix::process::setrlimit(Resource::Memlock, unlimited)?;
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT)
}

/// Has memory that is mapped from now on stay out of swap, too, unless that layer is missing.
///
/// # Errors
/// If the operating system refuses.
pub fn lock_later_memory() -> io::Result<()> {
    let is_missing = rustix::process::getrlimit(Resource::Memlock).current.is_some();
    if !is_missing {
        rustix::mm::mlockall(MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    }
    Ok(())
}

/// Becomes `user`, if it is to be one, and gives up all capabilities.
fn forget_privileges(user: Option<u32>) -> Result<(), JailError> {
    if rustix::process::geteuid().is_root() {
        forget_obtainable_capabilities().map_err(system("giving up capabilities that could be had"))?;
    }
    if let Some(user) = user {
        become_user(user).map_err(system("becoming a user of its own"))?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(system("giving up capabilities"))
}

/// Becomes this user and group, without further groups. Capabilities go with root.
///
/// # Errors
/// If this process is not root.
pub fn become_user(user: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)
}

/// A session's keys are for whoever is in the session, whatever user it has become (`session-keyring(7)`). The user's own keys are
/// left with the user.
fn leave_keyrings() -> Result<(), Errno> {
    match join_new_session_keyring() {
        // There are no keys, or whoever made the container that this is in lets nobody in it ask for any.
        Err(Errno::NOSYS | Errno::PERM) => Ok(()),
        outcome => outcome,
    }
}

#[expect(unsafe_code, reason = "rustix does not know the call")]
fn join_new_session_keyring() -> Result<(), Errno> {
    let nameless: *const libc::c_char = std::ptr::null();
    // SAFETY: without a name there is nothing that the kernel would read.
    let keyring = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, nameless) };
    if keyring >= 0 {
        return Ok(());
    }
    Err(last_error())
}

/// Of a call of the C library.
fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Also those that this program does not know by name.
fn forget_obtainable_capabilities() -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // There are no more.
            Err(Errno::INVAL) => break,
            outcome => outcome?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_option_that_allows_it() {
        let jail = Jail {
            user: None,
            may_be_missing: vec![Layer::OwnUser],
        };
        let missing =
            [Layer::OwnUser, Layer::EmptyRoot, Layer::UtsNamespace].map(|layer| (layer, Errno::PERM));

        let error = jail.permit(missing.to_vec()).unwrap_err().to_string();

        assert!(
            error.contains("lacks empty-root (Operation not permitted"),
            "{error}"
        );
        assert!(
            error.ends_with("--allow-missing empty-root,uts-namespace"),
            "{error}"
        );
    }
}
