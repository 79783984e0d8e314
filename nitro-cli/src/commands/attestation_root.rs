//! `attestation-root`, which AWS does not have as a command: the certificate that verifiers of this machine's attestation
//! documents pin.

use std::io::{self, Write};

use api::{ErrorCode, Reply, Request};

use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;

pub(super) fn execute(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::AttestationRoot, None)? {
        Reply::AttestationRoot(pem) => {
            let mut stdout = io::stdout().lock();
            stdout
                .write_all(pem.as_bytes())
                .and_then(|()| stdout.flush())
                .map_err(|error| output::write_error(ErrorCode::FileOperation, &error))
        }
        _ => Err(unexpected_answer().into()),
    }
}
