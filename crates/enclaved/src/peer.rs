//! Who a client is, and what it may do.
//!
//! The kernel tells the user of the process that has connected (`SO_PEERCRED` in unix(7)); nothing that a client says of itself
//! counts. Whoever can connect, root and the group of the socket, may start enclaves and look at all of them. An enclave is ended
//! by the user that has started it, its owner, and by root, as on AWS. The table is in `docs/threat-model.md`, and the suite
//! `users` goes through it.

use std::io;

use tokio::net::UnixStream;

/// The user that may do everything.
const ROOT: u32 = 0;

/// The process that has connected, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its user (effective).
    pub user: u32,
    /// Its group (effective).
    pub group: u32,
    /// Its id, unless it is in a PID namespace that this process cannot see into. It may have ended.
    pub process: Option<i32>,
}

impl Peer {
    /// The process at the other end of `stream`.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        Ok(Self {
            user: credentials.uid(),
            group: credentials.gid(),
            process: credentials.pid().filter(|process| *process != 0),
        })
    }

    /// Whether it is root.
    pub fn is_root(self) -> bool {
        self.user == ROOT
    }

    /// Whether it may end an enclave of this owner. Where that is not known, as of enclaves that were started by a daemon which
    /// did not write it down, only root may.
    pub fn may_end(self, owner: Option<u32>) -> bool {
        self.is_root() || owner == Some(self.user)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A client of this user.
    pub(crate) fn user(user: u32) -> Peer {
        Peer {
            user,
            group: 900,
            process: None,
        }
    }

    #[test]
    fn an_enclave_is_ended_by_its_owner_and_by_root_alone() {
        assert!(user(1000).may_end(Some(1000)));
        assert!(!user(1001).may_end(Some(1000)));
        assert!(user(0).may_end(Some(1000)));
        assert!(!user(1000).may_end(Some(0)));
    }

    #[test]
    fn an_enclave_of_an_unknown_owner_is_ended_by_root_alone() {
        assert!(user(0).may_end(None));
        assert!(!user(1000).may_end(None));
    }
}
