//! Why a step could not be done.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

/// A failed step.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or directory could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot run `{program}`")]
    Spawn { program: String, source: io::Error },
    /// A program ended with an error.
    #[error("`{command}` failed ({status}); its whole output is in {}\n{tail}", log.display())]
    Failed {
        command: String,
        status: ExitStatus,
        log: PathBuf,
        tail: String,
    },
    /// Debian packages are missing and cannot be installed by this user.
    #[error("these Debian packages are missing: {0}; install them, or run this as root")]
    NotRoot(String),
    /// The output of `cargo metadata` is not as documented.
    #[error("cannot understand `cargo metadata`")]
    Metadata(#[source] serde_json::Error),
    /// cargo built something else than it was asked for.
    #[error("cargo built no executable called `{0}`")]
    NotBuilt(String),
    /// There is no directory for files that outlive this checkout.
    #[error("neither XDG_CACHE_HOME nor HOME is set; kernels and downloads need a directory that stays")]
    NoCache,
    /// There is no corpus of this name.
    #[error("there is no fuzz target `{name}`; there are {known}")]
    NoFuzzTarget { name: String, known: String },
    /// What counts edges has counted none.
    #[error(
        "no edges of the code that the fuzz target `{0}` is about; see its `modules` in crates/fuzz-targets/src/lib.rs"
    )]
    NoEdges(String),
    /// A suite's `// parent:` line cannot be understood.
    #[error("the `// parent:` line of {} is wrong: {reason}", path.display())]
    SuiteHead { path: PathBuf, reason: String },
    /// The parent instance failed.
    #[error(transparent)]
    Parent(#[from] parent_instance::Error),
}

/// Gives an I/O error the path it happened at.
pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        action,
        path: path.to_owned(),
        source,
    }
}
