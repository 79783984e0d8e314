//! Why the proxy cannot start. The texts begin as AWS's do.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::configuration::ConfigurationError;
use crate::remote::RemoteError;

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Not a number of 32 bits.
    #[error("Local port is not valid")]
    LocalPort,
    /// Not a number of 16 bits.
    #[error("Remote port is not valid")]
    RemotePort,
    /// Not a number.
    #[error("Number of workers is not valid")]
    Workers,
    /// Zero.
    #[error("Number of workers must not be 0")]
    NoWorkers,
    /// The allowlist cannot be used.
    #[error("Error at checking the allowlist: {}", file.display())]
    Allowlist {
        file: PathBuf,
        source: ConfigurationError,
    },
    /// The allowlist does not have the server, or whether it has cannot be found out.
    #[error("Error at checking the allowlist: {remote}")]
    Remote { remote: String, source: RemoteError },
    /// The file of targets cannot be used.
    #[error("Could not create proxy: {}", file.display())]
    Targets {
        file: PathBuf,
        source: ConfigurationError,
    },
    /// Somewhere cannot be listened at.
    #[error("Could not listen for connections: Could not bind to {address}")]
    Listen { address: String, source: io::Error },
    /// The runtime cannot be had.
    #[error("Could not create proxy: the machine lacks threads or descriptors")]
    Runtime(#[source] io::Error),
}

/// An error with all that caused it, in one line.
pub(crate) fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
