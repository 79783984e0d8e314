//! `describe-enclaves`: the running enclaves as a JSON array, `[]` if there is none.

use api::{Reply, Request};

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
