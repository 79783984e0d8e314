//! `attestation-root`, which AWS does not have as a command: the certificate that verifiers of this machine's attestation
//! documents pin.

use api::{Reply, Request};

use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;

pub(super) fn execute(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::AttestationRoot, None)? {
        Reply::AttestationRoot(pem) => output::print_text(&pem),
        _ => Err(unexpected_answer().into()),
    }
}
