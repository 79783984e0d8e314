//! Why a parent instance could not be prepared, started or heard to the end.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the machine itself. A command that ran and failed is no error but an [`Exit`](crate::Exit).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The description contradicts itself or asks for what the machine cannot have.
    #[error("parent instance: {0}")]
    Config(String),
    /// A file or directory on the caller's side could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb: `read`, `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A program that prepares or is the machine could not be started.
    #[error("cannot run `{program}`; is its Debian package installed?")]
    Spawn {
        /// Name of the program.
        program: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The named Debian packages could not be found, downloaded or unpacked.
    #[error("`{program}` failed for Debian packages {packages}:\n{output}")]
    Packages {
        /// The apt or dpkg program.
        program: &'static str,
        /// The packages that were asked for.
        packages: String,
        /// What the program said.
        output: String,
    },
    /// QEMU ended and says why: most often it refused its command line.
    #[error("QEMU ended: {output}")]
    Qemu {
        /// What QEMU said.
        output: String,
    },
    /// Neither of two machines came as far as its process 1.
    #[error("the machine did not reach its init within {limit:?}, twice; its serial log is {}", log.display())]
    NoInit {
        /// How long each attempt was given.
        limit: Duration,
        /// Serial log of the second attempt.
        log: PathBuf,
    },
    /// Process 1 could not bring up something that was asked for.
    #[error("the machine could not be made ready: {reason}; its serial log is {}", log.display())]
    NotReady {
        /// What was missing, in init's words.
        reason: String,
        /// Serial log.
        log: PathBuf,
    },
    /// The machine ended, by a kernel panic, a reset or a crash of QEMU, before the command did.
    #[error("the machine ended before its command; its serial log is {}", log.display())]
    Ended {
        /// Serial log.
        log: PathBuf,
    },
    /// The command ran longer than [`Config::time_limit`](crate::Config::time_limit) and the machine was killed.
    #[error("the time limit of {limit:?} is over; the machine was killed, its serial log is {}", log.display())]
    TimeLimit {
        /// The limit.
        limit: Duration,
        /// Serial log.
        log: PathBuf,
    },
    /// A connection to the machine failed, or its output could not be passed on.
    #[error("cannot {action}")]
    Stream {
        /// What was tried: `write the command's standard output`.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// Gives an I/O error the path it happened at.
pub(crate) fn at<'a>(
    action: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}
