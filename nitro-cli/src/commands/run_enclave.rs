//! `run-enclave`: opens the EIF as the caller, hands its descriptor to the daemon, waits for the enclave's heartbeat.
//!
//! Everything up to the connection to the daemon is the caller's own business; what the daemon then declines is
//! reported as AWS's nitro-cli reports a failure of the enclave's process (exit code 39, root cause first). The same
//! holds for an EIF that cannot be opened, because there that process opens it.
//!
//! Ctrl-C ends this process only. The daemon notices and takes down an enclave that has not booted yet.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use api::{CpuSelection, EnclaveRunInfo, ErrorCode, Failure, Reply, Request, Selector};

use crate::arguments::RunEnclave;
use crate::commands::console;
use crate::daemon::{AskError, Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::files::open_regular;
use crate::{output, values};

pub(super) fn execute(options: &RunEnclave, environment: &Environment) -> Result<(), CommandError> {
    let request = parse(options)?;
    if options.enclave_cid.is_some() && request.enclave_cid.is_none() {
        output::notice("The enclave CID will be auto-generated as the provided CID is 0");
    }
    let eif = open_eif(&options.eif_path).map_err(CommandError::EnclaveFailed)?;
    let enclave = start(request, &eif, environment).map_err(|error| match error {
        AskError::Declined(cause) => CommandError::EnclaveFailed(cause),
        AskError::NoAnswer(failure) => CommandError::Failed(failure),
    })?;
    output::print_json(&enclave)?;
    if options.attach_console {
        console::watch(Selector::Id(enclave.enclave_id), None, environment)?;
    }
    Ok(())
}

/// The options as the daemon's request, or E03.
fn parse(options: &RunEnclave) -> Result<api::RunEnclave, Failure> {
    let memory_mib = values::memory_mib(&options.memory)?;
    let cpus = match (&options.cpu_count, &options.cpu_ids) {
        (Some(count), _) => CpuSelection::Count(values::cpu_count(count)?),
        (None, ids) => CpuSelection::Ids(values::cpu_ids(ids.as_deref().unwrap_or_default())?),
    };
    let enclave_cid = match &options.enclave_cid {
        Some(text) => values::enclave_cid(text)?,
        None => None,
    };
    Ok(api::RunEnclave {
        memory_mib,
        cpus,
        enclave_cid,
        enclave_name: match &options.enclave_name {
            Some(name) => name.clone(),
            None => name_from_path(&options.eif_path),
        },
        debug_mode: options.debug_mode || options.attach_console,
    })
}

/// The file name without its `.eif` endings: `/srv/hello.eif` and `hello.eif.eif` both give `hello`.
fn name_from_path(eif_path: &Path) -> String {
    let file_name = eif_path.file_name().unwrap_or_default().to_string_lossy();
    file_name.trim_end_matches(".eif").to_owned()
}

fn open_eif(path: &Path) -> Result<File, Failure> {
    match open_regular(path) {
        Ok((file, _)) => Ok(file),
        Err(error) => Err(Failure::caused_by(
            ErrorCode::FileOperation,
            &format!("Cannot open the EIF `{}`", path.display()),
            &error,
        )),
    }
}

fn start(
    request: api::RunEnclave,
    eif: &File,
    environment: &Environment,
) -> Result<EnclaveRunInfo, AskError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::RunEnclave(request), Some(eif.as_fd()))? {
        Reply::EnclaveStarted(enclave) => Ok(enclave),
        _ => Err(unexpected_answer()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enclave_is_named_after_its_image() {
        let cases = [
            ("hello.eif", "hello"),
            ("/srv/images/hello.eif", "hello"),
            ("hello.eif.eif", "hello"),
            ("hello.v2.eif", "hello.v2"),
            ("hello", "hello"),
            ("hello.eif.bak", "hello.eif.bak"),
        ];
        for (path, name) in cases {
            assert_eq!(name_from_path(Path::new(path)), name, "{path}");
        }
    }
}
