//! `console`: an enclave's console on standard output, read-only, until the enclave ends, the time is up or nobody
//! reads any more.
//!
//! The time limit counts from the start and holds to the second, whatever the console, standard output or the daemon do (see
//! [`crate::streaming`]).

use std::time::{Duration, Instant};

use api::{Reply, Request, Selector};

use crate::arguments::Console;
use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;
use crate::streaming::{Wait, copy, show};
use crate::values;

pub(super) fn execute(options: &Console, environment: &Environment) -> Result<(), CommandError> {
    let timeout = match &options.disconnect_timeout {
        Some(text) => Some(Duration::from_secs(values::disconnect_timeout(text)?)),
        None => None,
    };
    watch(options.selector(), timeout, environment)
}

/// Shows the console of the enclave that `selector` names, for `timeout` at most.
pub(super) fn watch(
    selector: Selector,
    timeout: Option<Duration>,
    environment: &Environment,
) -> Result<(), CommandError> {
    // A time too far away to be a time is no limit.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    if let Some(deadline) = deadline {
        daemon.answer_until(deadline);
    }
    let Reply::ConsoleAttached { enclave_cid } = daemon.ask(&Request::Console(selector), None)? else {
        return Err(unexpected_answer().into());
    };
    let mut stdout = output::raw_stdout()?;
    let greeting = format!(
        "Connecting to the console for enclave {enclave_cid}...\nSuccessfully connected to the console.\n"
    );
    match show(&mut stdout, greeting.as_bytes(), deadline)? {
        Wait::Ready => copy(&daemon.into_stream(), &mut stdout, deadline),
        Wait::TimeIsUp => Ok(()),
    }
}
