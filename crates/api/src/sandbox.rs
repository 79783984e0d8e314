//! The layers of a VMM's sandbox that a machine may be unable to give, by the names that operators use.
//!
//! An enclave does not run without any of them, unless the operator has allowed that very layer to be missing. Everything else that
//! holds a VMM, its filters of system calls among them, every Linux that has KVM can give.

use std::fmt;
use std::str::FromStr;

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The VMM is a user of its own.
    OwnUser,
    /// It sees one directory and no other file system.
    EmptyRoot,
    /// It has no network interface, and no abstract Unix socket of the machine's.
    NetworkNamespace,
    /// It has no System V objects and message queues of the machine's.
    IpcNamespace,
    /// It cannot name the machine.
    UtsNamespace,
    /// Its memory is not written to swap.
    LockedMemory,
}

/// There is no such layer.
#[derive(Debug, thiserror::Error)]
#[error("there is no layer {0:?} of a VMM's sandbox")]
pub struct UnknownLayer(String);

impl Layer {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::OwnUser,
        Self::EmptyRoot,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::LockedMemory,
    ];

    /// What operators call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnUser => "own-user",
            Self::EmptyRoot => "empty-root",
            Self::NetworkNamespace => "network-namespace",
            Self::IpcNamespace => "ipc-namespace",
            Self::UtsNamespace => "uts-namespace",
            Self::LockedMemory => "locked-memory",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(name: &str) -> Result<Self, UnknownLayer> {
        let found = Self::ALL.into_iter().find(|layer| layer.name() == name);
        found.ok_or_else(|| UnknownLayer(name.to_owned()))
    }
}
