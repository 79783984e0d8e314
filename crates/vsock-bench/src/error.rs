//! Why nothing could be measured. A guest that does not answer is no such reason but a result.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A failed benchmark.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be used.
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
    #[error("cannot build the guest's initramfs")]
    Initramfs(#[from] image::cpio::Error),
    /// The VMM does not run.
    #[error(transparent)]
    Launch(#[from] bench::Error),
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
