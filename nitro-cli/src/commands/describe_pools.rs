//! `describe-pools`, which AWS does not have: what the parent has for enclaves, and who holds it.

use api::{Reply, Request};

use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;

pub(super) fn execute(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::DescribePools, None)? {
        Reply::Pools(pools) => output::print_json(&pools),
        _ => Err(unexpected_answer().into()),
    }
}
