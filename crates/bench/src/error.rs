//! What keeps any benchmark from measuring.

use std::{
    io,
    path::{Path, PathBuf},
};

/// What the operating system refused, or a VMM that does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// The VMM ended or said that it failed.
    #[error("the VMM could not start the enclave: {0}")]
    Vmm(String),
}

/// Gives an I/O error the path it happened at.
pub fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Gives an error of the operating system what was tried.
pub fn system<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::System {
        action,
        source: source.into(),
    }
}
