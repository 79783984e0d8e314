//! The user that a VMM runs as: one of its own per enclave, with no name and no other process.
//!
//! A guest that takes over its VMM is then that user, who may open no file of the daemon's and signal, trace or look into no
//! other process. What the VMM needs it is given as descriptors; the one thing that it does by name, connecting to sockets
//! in its enclave's directory, it is allowed to do there ([`crate::run_directory`], `port_listeners`).
//!
//! No two enclaves of a machine have a CPU in common, so the user is a fixed number plus that of the enclave's first CPU:
//! nothing has to be handed out or taken back.

use rustix::fs::{Gid, Uid};
use serde::{Deserialize, Serialize};

/// The first user id that systemd leaves to nobody (its "Users, Groups, UIDs and GIDs"), unless an operator says otherwise.
pub const FIRST_VMM_USER: u32 = 0x7000_0000;

/// The users of this machine's VMMs.
#[derive(Debug, Clone, Copy)]
pub struct VmmUsers {
    first: Option<u32>,
}

impl VmmUsers {
    /// The user ids from `first` on, if this process is root and may choose: else VMMs are the daemon's user.
    pub fn from(first: u32) -> Self {
        let may_choose = rustix::process::geteuid().is_root();
        Self {
            first: may_choose.then_some(first),
        }
    }

    /// The user of the enclave that has these CPUs.
    pub fn of(self, cpu_ids: &[u32]) -> Option<VmmUser> {
        let id = self.first?.checked_add(*cpu_ids.first()?)?;
        // -1 means "no change" to the kernel.
        (id != u32::MAX).then_some(VmmUser(id))
    }
}

/// One VMM's user, and its group, which has the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VmmUser(u32);

impl VmmUser {
    /// Its number.
    pub fn id(self) -> u32 {
        self.0
    }

    /// As the owner of a file.
    pub fn uid(self) -> Uid {
        Uid::from_raw(self.0)
    }

    /// As the group of a file.
    pub fn gid(self) -> Gid {
        Gid::from_raw(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enclaves_without_a_common_cpu_have_different_users() {
        let users = VmmUsers { first: Some(1000) };
        assert_eq!(users.of(&[2, 3]), Some(VmmUser(1002)));
        assert_eq!(users.of(&[4]), Some(VmmUser(1004)));
    }

    #[test]
    fn there_is_no_user_beyond_the_last_number_and_none_for_a_daemon_that_may_not_choose() {
        assert_eq!(VmmUsers { first: None }.of(&[2]), None);
        let last = VmmUsers {
            first: Some(u32::MAX - 2),
        };
        assert_eq!(last.of(&[1]), Some(VmmUser(u32::MAX - 1)));
        assert_eq!(last.of(&[2]), None);
        assert_eq!(last.of(&[3]), None);
    }
}
