//! What carries the vsock of an enclave, chosen when the enclave is started: by its client, else by the operator, else by what the
//! machine has.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use api::vmm::VsockBackend;
use api::{ErrorCode, Failure};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// A backend, with what it takes.
#[derive(Debug)]
pub(crate) enum VsockCarrier {
    /// Unix sockets, in a directory that is still to be made.
    Unix,
    /// The kernel, by its vhost-vsock device.
    Kernel(OwnedFd),
}

impl VsockCarrier {
    /// The backend that is `wanted`; without a wish the kernel, if it has a vhost-vsock `device`. Whether it does shows when it is
    /// opened: its file may be there to have the module loaded.
    ///
    /// # Errors
    /// E19 if the kernel is wanted and has none, or it cannot be opened.
    pub(crate) fn open(wanted: Option<VsockBackend>, device: &Path) -> Result<Self, Failure> {
        if wanted == Some(VsockBackend::Unix) {
            return Ok(Self::Unix);
        }
        match rustix::fs::open(device, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(device) => Ok(Self::Kernel(device)),
            Err(error) if is_not_there(error) && wanted.is_none() => Ok(Self::Unix),
            Err(error) => Err(cannot_open(device, error)),
        }
    }

    /// Which it is.
    pub(crate) fn backend(&self) -> VsockBackend {
        match self {
            Self::Unix => VsockBackend::Unix,
            Self::Kernel(_) => VsockBackend::Kernel,
        }
    }
}

/// Whether the kernel has no such device.
fn is_not_there(error: Errno) -> bool {
    [Errno::NOENT, Errno::NODEV, Errno::NXIO].contains(&error)
}

fn cannot_open(device: &Path, error: Errno) -> Failure {
    let device = device.display();
    let context = if is_not_there(error) {
        format!("There is no {device}; `modprobe vhost_vsock` makes it, and `--vsock unix` does without")
    } else {
        format!("{device} cannot be opened; `--vsock unix` does without")
    };
    Failure::caused_by(ErrorCode::FileOperation, &context, &io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_default_where_it_is_there_and_a_wish_goes_before() {
        let there = tempfile::NamedTempFile::new().unwrap();
        let (there, absent) = (there.path(), Path::new("/nonexistent"));
        let opened = |wanted, device| VsockCarrier::open(wanted, device).map(|carrier| carrier.backend());
        let (unix, kernel) = (VsockBackend::Unix, VsockBackend::Kernel);

        assert_eq!(opened(None, there), Ok(kernel));
        assert_eq!(opened(None, absent), Ok(unix));
        assert_eq!(opened(Some(unix), there), Ok(unix));
        assert_eq!(opened(Some(kernel), there), Ok(kernel));
        let failure = opened(Some(kernel), absent).unwrap_err();
        assert_eq!(failure.code, ErrorCode::FileOperation);
        assert!(
            failure.message.contains("modprobe vhost_vsock"),
            "{}",
            failure.message
        );
        // What is there and cannot be used is a fault, not an absence.
        let failure = opened(None, Path::new("/")).unwrap_err();
        assert!(
            failure.message.contains("cannot be opened"),
            "{}",
            failure.message
        );
    }
}
