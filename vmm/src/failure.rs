//! The one table from what can go wrong in this process to the numbers of AWS's nitro-cli.

use api::{ErrorCode, Failure};
use eif::EifError;

use crate::{
    arch::{BootError, KernelError},
    control::ControlError,
    load::LoadError,
    memory::MemoryError,
    sandbox::{filter::FilterError, jail::JailError},
};

/// Anything that keeps an enclave from starting.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The conversation with the daemon.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The image.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Boot state and vCPUs.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The process can reach more than it should.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The system calls of a thread could not be restricted.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The parent's kernel does not take the guest's CID.
    #[error(
        "another virtual machine of this host, or the host itself, has the CID {0}; choose another with --enclave-cid"
    )]
    CidTaken(u32),
    /// A device, a thread or a descriptor that the operating system refused.
    #[error("{what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl LaunchError {
    /// For `map_err` on I/O results.
    pub(crate) fn system<E: Into<std::io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}

impl LaunchError {
    /// For `map_err` on opening vhost-vsock for this CID.
    pub(crate) fn vhost(guest_cid: u32) -> impl Fn(std::io::Error) -> Self {
        move |source| match source.kind() {
            std::io::ErrorKind::AddrInUse => Self::CidTaken(guest_cid),
            _ => Self::system("opening /dev/vhost-vsock")(source),
        }
    }
}

impl From<&LaunchError> for Failure {
    fn from(error: &LaunchError) -> Self {
        let code = match error {
            LaunchError::Memory(memory) if memory.is_shortage() => ErrorCode::InsufficientMemoryAvailable,
            LaunchError::Memory(_) => ErrorCode::Mmap,
            LaunchError::Load(LoadError::TooLarge { .. }) => ErrorCode::MemoryOverflow,
            LaunchError::Load(LoadError::Read { .. } | LoadError::Eif(EifError::Read { .. })) => {
                ErrorCode::FileOperation
            }
            LaunchError::Load(_) => ErrorCode::EifParsing,
            LaunchError::Boot(_) | LaunchError::CidTaken(_) => ErrorCode::IoctlFailure,
            LaunchError::Control(_)
            | LaunchError::System { .. }
            | LaunchError::Jail(_)
            | LaunchError::Filter(_) => ErrorCode::EnclaveBootFailure,
        };
        Self::caused_by(code, "the enclave could not be started", error)
    }
}

impl From<KernelError> for LaunchError {
    fn from(error: KernelError) -> Self {
        Self::Load(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cannot_be_read_is_not_called_malformed() {
        let broken = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let in_contents = EifError::Read {
            offset: 0,
            length: 548,
            source: broken(),
        };
        let in_section = LoadError::Read {
            offset: 548,
            source: broken(),
        };
        for error in [LoadError::Eif(in_contents), in_section] {
            let failure = Failure::from(&LaunchError::Load(error));

            assert_eq!(failure.code, ErrorCode::FileOperation);
        }
    }
}
