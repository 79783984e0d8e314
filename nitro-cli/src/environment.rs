//! Environment variables, read once.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

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
    /// The time of a reproducible build: `SOURCE_DATE_EPOCH`, as it is.
    pub(crate) source_date_epoch: Option<OsString>,
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
            source_date_epoch: variable("SOURCE_DATE_EPOCH"),
        }
    }
}

/// A variable of this process, for what is configured as other programs are. An empty one counts as unset.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
