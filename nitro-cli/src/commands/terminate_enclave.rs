//! `terminate-enclave`: one JSON object for one enclave, an array (maybe empty) for `--all`.

use api::{Reply, Request, Selector};

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
        for enclave in &terminated {
            announce(&enclave.enclave_id);
        }
        return output::print_json(&terminated);
    }
    let [enclave] = terminated.as_slice() else {
        return Err(unexpected_answer().into());
    };
    announce(&enclave.enclave_id);
    output::print_json(enclave)
}

fn announce(enclave_id: &str) {
    output::notice(format_args!("Successfully terminated enclave {enclave_id}."));
}
