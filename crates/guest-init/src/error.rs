//! What can go wrong before the application runs. Each is fatal and is printed once, as the enclave's last line.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// A failed step of the boot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// `sigprocmask` failed.
    #[error("cannot block signals")]
    Signals(#[source] io::Error),
    /// An operation on a file, directory or mount point failed.
    #[error("cannot {action} {}", path.display())]
    Path {
        /// What was tried, as words that fit between "cannot" and the path.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file system could not be mounted.
    #[error("cannot mount {file_system} on {target}")]
    Mount {
        /// The file system's type.
        file_system: &'static str,
        /// The mount point.
        target: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The vsock connection to the parent instance failed.
    #[error("heartbeat to the parent instance (vsock CID {cid} port {port}): cannot {action}")]
    Heartbeat {
        /// What was tried, as words that fit after "cannot".
        action: &'static str,
        /// Context identifier of the parent.
        cid: u32,
        /// Port of its listener.
        port: u32,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The parent instance answered the heartbeat with another byte.
    #[error("heartbeat to the parent instance: it answered {0:#04x} instead of {expected:#04x}", expected = crate::heartbeat::BYTE)]
    HeartbeatAnswer(u8),
    /// `fork` failed.
    #[error("cannot create a process for the application")]
    Fork(#[source] io::Error),
    /// `waitpid` failed.
    #[error("cannot wait for the application")]
    Wait(#[source] io::Error),
}

impl Error {
    /// Makes a closure for `map_err` that names the action and the path.
    pub(crate) fn at<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |source| Self::Path {
            action,
            path: path.to_path_buf(),
            source: source.into(),
        }
    }
}

/// The error and its sources in one line, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_names_action_path_and_reason() {
        let failed = Error::at("read", Path::new("/cmd"))(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(
            chain(&failed),
            "cannot read /cmd: Operation not permitted (os error 1)"
        );
    }

    #[test]
    fn a_wrong_heartbeat_answer_shows_both_bytes() {
        assert_eq!(
            chain(&Error::HeartbeatAnswer(0)),
            "heartbeat to the parent instance: it answered 0x00 instead of 0xb7"
        );
    }
}
