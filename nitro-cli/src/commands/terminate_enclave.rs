//! `terminate-enclave`: one JSON object for one enclave, an array (maybe empty) for `--all`.
//!
//! `--all` ends what the caller may end. If there are enclaves of others, which go on, it fails all the same, with the JSON of
//! those that have ended on standard output, as AWS's does.

use api::{EnclaveTermination, ErrorCode, Failure, Reply, Request, Selector};

use crate::arguments::TerminateEnclave;
use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;

pub(super) fn execute(options: &TerminateEnclave, environment: &Environment) -> Result<(), CommandError> {
    let selector = options.selector();
    let all = selector == Selector::All;
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    let Reply::Terminated(terminated) = daemon.ask(&Request::TerminateEnclave(selector), None)? else {
        return Err(unexpected_answer().into());
    };
    if all {
        let (ended, refused): (Vec<_>, Vec<_>) =
            terminated.into_iter().partition(|enclave| enclave.terminated);
        for enclave in &ended {
            announce(&enclave.enclave_id);
        }
        output::print_json(&ended)?;
        return if refused.is_empty() {
            Ok(())
        } else {
            Err(of_others(&refused).into())
        };
    }
    let [enclave] = terminated.as_slice() else {
        return Err(unexpected_answer().into());
    };
    announce(&enclave.enclave_id);
    output::print_json(enclave)
}

/// The failure if some enclaves are not the caller's.
fn of_others(enclaves: &[EnclaveTermination]) -> Failure {
    output::notice(format_args!("Failed connections: {}", enclaves.len()));
    let ids: Vec<_> = enclaves
        .iter()
        .map(|enclave| enclave.enclave_id.as_str())
        .collect();
    let message = format!(
        "No permission to terminate {}: only who has started an enclave and root may end it",
        ids.join(", ")
    );
    Failure::new(ErrorCode::ProcessConnectionFailure, message)
}

fn announce(enclave_id: &str) {
    output::notice(format_args!("Successfully terminated enclave {enclave_id}."));
}
