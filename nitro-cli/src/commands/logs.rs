//! `logs`: what an enclave in debug mode has printed, as it is, on standard output. Unlike `console` it ends where there is nothing
//! more, adds no line of its own, and works after the enclave's end.

use api::{Reply, Request};

use crate::arguments::Logs;
use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;
use crate::streaming::copy;

pub(super) fn execute(options: &Logs, environment: &Environment) -> Result<(), CommandError> {
    let request = Request::Logs(api::Logs {
        enclave: options.selector(),
        follow: options.follow,
    });
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    let Reply::ConsoleAttached { .. } = daemon.ask(&request, None)? else {
        return Err(unexpected_answer().into());
    };
    copy(&daemon.into_stream(), &mut output::raw_stdout()?, None)
}
