//! `run-enclave`: opens the EIF as the caller, hands its descriptor to the daemon, waits for the enclave's heartbeat.
//!
//! Everything up to the connection to the daemon is the caller's own business; what the daemon then declines is
//! reported as AWS's nitro-cli reports a failure of the enclave's process (exit code 39, root cause first). The same
//! holds for an EIF that cannot be opened, because there that process opens it.
//!
//! Ctrl-C ends this process only. The daemon notices and takes down an enclave that has not booted yet. With `--wait` it ends the
//! enclave (see [`crate::foreground`]).

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use api::{EnclaveRunInfo, ErrorCode, Failure, Reply, Request, Selector};

use crate::arguments::RunEnclave;
use crate::commands::console;
use crate::daemon::{AskError, Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::files::open_regular;
use crate::foreground::Foreground;
use crate::run_configuration::{Cid, Wanted};
use crate::{image_metadata, output};

pub(super) fn execute(options: &RunEnclave, environment: &Environment) -> Result<(), CommandError> {
    let wanted = Wanted::from_options(options)?;
    if wanted.cid == Cid::Chosen {
        output::notice("The enclave CID will be auto-generated as the provided CID is 0");
    }
    let (eif, size) = open_eif(&wanted.eif_path).map_err(CommandError::EnclaveFailed)?;
    let request = request(&wanted, image_metadata::of_image(&eif, size));
    if options.wait {
        return run_to_the_end(&wanted, request, &eif, environment);
    }
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    let enclave = start(&mut daemon, request, &eif)?;
    show(&enclave, &wanted, environment)
}

/// Stays until the enclave has ended, whatever becomes of what it prints.
fn run_to_the_end(
    wanted: &Wanted,
    request: api::RunEnclave,
    eif: &File,
    environment: &Environment,
) -> Result<(), CommandError> {
    let foreground = Foreground::catch(&environment.daemon_socket)?;
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    foreground.starting(&daemon)?;
    let enclave = start(&mut daemon, request, eif).map_err(|error| foreground.exit().unwrap_or(error))?;
    foreground.running(&enclave.enclave_id);
    let shown = show(&enclave, wanted, environment);
    foreground.end(&enclave.enclave_id)?;
    shown
}

/// Prints the enclave, and then its console, if that is wanted.
fn show(enclave: &EnclaveRunInfo, wanted: &Wanted, environment: &Environment) -> Result<(), CommandError> {
    output::print_json(enclave)?;
    if wanted.attach_console {
        console::watch(Selector::Id(enclave.enclave_id.clone()), None, environment)?;
    }
    Ok(())
}

fn request(wanted: &Wanted, image_metadata: Option<String>) -> api::RunEnclave {
    api::RunEnclave {
        memory_mib: wanted.memory_mib,
        cpus: wanted.cpus.clone(),
        enclave_cid: match wanted.cid {
            Cid::Fixed(cid) => Some(cid),
            Cid::NotSaid | Cid::Chosen => None,
        },
        enclave_name: wanted.enclave_name(),
        debug_mode: wanted.debug_mode,
        image_metadata,
        vsock: wanted.vsock,
    }
}

fn open_eif(path: &Path) -> Result<(File, u64), Failure> {
    open_regular(path).map_err(|error| {
        let context = format!("Cannot open the EIF `{}`", path.display());
        Failure::caused_by(ErrorCode::FileOperation, &context, &error)
    })
}

/// The enclave, booted.
fn start(daemon: &mut Daemon, request: api::RunEnclave, eif: &File) -> Result<EnclaveRunInfo, CommandError> {
    match daemon.ask(&Request::RunEnclave(request), Some(eif.as_fd())) {
        Ok(Reply::EnclaveStarted(enclave)) => Ok(enclave),
        Ok(_) => Err(unexpected_answer().into()),
        Err(AskError::Declined(cause)) => Err(CommandError::EnclaveFailed(cause)),
        Err(AskError::NoAnswer(failure)) => Err(CommandError::Failed(failure)),
    }
}
