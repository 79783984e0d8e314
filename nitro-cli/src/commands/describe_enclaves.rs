//! `describe-enclaves`: the running enclaves as a JSON array, `[]` if there is none; with `--ended`, which AWS does not have,
//! those that have ended lately.

use api::{EnclaveFlags, EnclaveRunInfo, EndedEnclave, Reply, Request};
use serde::Serialize;

use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;

pub(super) fn execute(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::DescribeEnclaves, None)? {
        Reply::Enclaves(enclaves) => output::print_json(&enclaves),
        _ => Err(unexpected_answer().into()),
    }
}

pub(super) fn execute_ended(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::EndedEnclaves, None)? {
        Reply::Ended(enclaves) => {
            output::print_json(&enclaves.into_iter().map(Shown::from).collect::<Vec<_>>())
        }
        _ => Err(unexpected_answer().into()),
    }
}

/// An ended enclave as it is printed: times for people.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    run: EnclaveRunInfo,
    #[serde(rename = "Flags")]
    flags: EnclaveFlags,
    #[serde(rename = "Reason")]
    reason: String,
    #[serde(rename = "ExitCode")]
    exit_code: Option<u16>,
    #[serde(rename = "StartedAt")]
    started_at: String,
    #[serde(rename = "EndedAt")]
    ended_at: String,
    #[serde(rename = "Console")]
    console: Vec<String>,
}

impl From<EndedEnclave> for Shown {
    fn from(enclave: EndedEnclave) -> Self {
        let time = |milliseconds: u64| image::rfc3339(u32::try_from(milliseconds / 1000).unwrap_or(u32::MAX));
        Self {
            started_at: time(enclave.started_at),
            ended_at: time(enclave.ended_at),
            run: enclave.run,
            flags: enclave.flags,
            reason: enclave.reason,
            exit_code: enclave.exit_code,
            console: enclave.console,
        }
    }
}
