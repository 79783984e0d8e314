//! Environment variables, read once.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use api::{ErrorCode, Failure};

use crate::log::{Directory, Level};

/// Where the kernel, its command line and the enclave's init are unless `NITRO_CLI_BLOBS` says otherwise; AWS's path.
const DEFAULT_BLOBS: &str = "/usr/share/nitro_enclaves/blobs/";

/// What the environment decides about every command.
#[derive(Debug)]
pub(crate) struct Environment {
    /// The daemon's socket: `ENCLAVED_SOCKET`, or [`api::DEFAULT_SOCKET`].
    pub(crate) daemon_socket: PathBuf,
    /// The directory of what `build-enclave` adds to an image: `NITRO_CLI_BLOBS`, or [`DEFAULT_BLOBS`].
    pub(crate) blobs: PathBuf,
    /// Where `build-enclave` keeps what it fetches: `NITRO_CLI_ARTIFACTS`, or `.nitro_cli` in the home directory, as AWS's;
    /// none if neither variable is set.
    pub(crate) artifacts: Option<PathBuf>,
    /// Where to log: `NITRO_CLI_LOGS_PATH`, or AWS's directory.
    pub(crate) logs: Directory,
    /// What to log: `RUST_LOG`, or commands and errors.
    pub(crate) log_level: Level,
    /// Whether an error shows what is in its file: `BACKTRACE` is `1`.
    pub(crate) backtrace: bool,
    /// The time of a reproducible build: `SOURCE_DATE_EPOCH`, as it is.
    source_date_epoch: Option<OsString>,
}

impl Environment {
    /// The variables of this process. An empty variable counts as unset.
    pub(crate) fn of_process() -> Self {
        Self {
            daemon_socket: variable("ENCLAVED_SOCKET")
                .map_or_else(|| api::DEFAULT_SOCKET.into(), PathBuf::from),
            blobs: variable("NITRO_CLI_BLOBS").map_or_else(|| DEFAULT_BLOBS.into(), PathBuf::from),
            artifacts: variable("NITRO_CLI_ARTIFACTS")
                .map(PathBuf::from)
                .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".nitro_cli"))),
            logs: variable("NITRO_CLI_LOGS_PATH")
                .map_or(Directory::Default, |path| Directory::Named(path.into())),
            log_level: variable("RUST_LOG")
                .map_or(Level::Info, |level| Level::parse(&level.to_string_lossy())),
            backtrace: variable("BACKTRACE").is_some_and(|value| value == "1"),
            source_date_epoch: variable("SOURCE_DATE_EPOCH"),
        }
    }
}

impl Environment {
    /// The time of a reproducible build, if it is set.
    ///
    /// # Errors
    /// E03 if it is no time.
    pub(crate) fn epoch(&self) -> Result<Option<u32>, Failure> {
        let parse = |text: &OsString| {
            text.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
                Failure::new(
                    ErrorCode::InvalidArgument,
                    format!(
                        "The environment variable SOURCE_DATE_EPOCH is `{}`. \
                         Set it to whole seconds since 1970, such as 1700000000, or unset it",
                        text.display()
                    ),
                )
            })
        };
        self.source_date_epoch.as_ref().map(parse).transpose()
    }
}

/// A variable of this process, for what is configured as other programs are. An empty one counts as unset.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
