//! Why a figure could not be measured.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

/// A failed measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file, a tracepoint's control file or a file of `/proc` could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Something that every process can do failed.
    #[error("cannot {action}")]
    System {
        /// What was tried, as a verb.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The EIF could not be written.
    #[error("cannot build the enclave's image")]
    Build(#[from] eif::WriteError),
    /// The initramfs could not be written.
    #[error("cannot build the enclave's initramfs")]
    Initramfs(#[from] image::cpio::Error),
    /// The EIF could not be read.
    #[error("cannot read the enclave's image")]
    Eif(#[from] eif::EifError),
    /// The VMM does not run.
    #[error(transparent)]
    Launch(#[from] bench::Error),
    /// The VMM did something that it should not.
    #[error("the VMM could not start the enclave: {0}")]
    Vmm(String),
    /// The guest did not come as far as it should.
    #[error("{what} was not seen within {limit:?} of virtual time")]
    NotSeen {
        /// The event.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A median of nothing was asked for.
    #[error("the number of runs is zero")]
    NoRuns,
    /// The program that hashes did not print a number.
    #[error("`boot-bench hash` failed: {0}")]
    Hash(String),
}

/// Gives an I/O error the path it happened at.
pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Gives an error of the operating system what was tried.
pub(crate) fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System {
        action,
        source: source.into(),
    }
}
