//! `enclave-vmm`: started by the daemon with its control socket as standard input, or by hand as `enclave-vmm probe`.

use std::{io::Write, os::fd::AsFd, process::ExitCode};

use api::vmm::{Event, ExitReason};
use enclave_vmm::failure::LaunchError;
use enclave_vmm::sandbox::{
    self, Class,
    filter::{Filter, Verdict},
};
use enclave_vmm::{control::Control, log, machine, privileges, probe, signals};

const USAGE: &str = "\
enclave-vmm runs one enclave. The daemon enclaved starts it; there is nothing to run by hand but

  enclave-vmm probe     say whether this machine's /dev/kvm can run enclaves; exit status 0 if so
  enclave-vmm calls     print which system calls each of its threads may make
  enclave-vmm --version

With --log-forbidden-calls the kernel logs system calls that it may not make, where they would end it.
";

/// For developers, who want to know of such calls. The daemon does not say it; a script that is its `--vmm` can.
const LOG_FORBIDDEN_CALLS: &str = "--log-forbidden-calls";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => run(Verdict::End),
        (Some(LOG_FORBIDDEN_CALLS), None) => run(Verdict::Log),
        (Some("probe"), None) => report_probe(),
        (Some("calls"), None) => {
            // Somebody who has read enough is no error.
            let _ = std::io::stdout().write_all(sandbox::calls::table().as_bytes());
            ExitCode::SUCCESS
        }
        (Some("--version"), None) => {
            println!("enclave-vmm {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Runs the enclave that the daemon describes; whatever happens is told to the daemon.
fn run(verdict: Verdict) -> ExitCode {
    signals::restore_default_actions();
    privileges::give_up();
    let stdin = std::io::stdin();
    let control = Control::new(stdin.as_fd());
    match run_confined(&control, verdict) {
        Ok(reason) => {
            control.send_last(&Event::Exited(reason));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let failure = (&error).into();
            log::line(format_args!("{failure}"));
            control.send_last(&Event::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn run_confined(control: &Control<'_>, verdict: Verdict) -> Result<ExitReason, LaunchError> {
    sandbox::allocator::keep_to_one_arena();
    Filter::of(Class::Boot, verdict)?.install()?;
    machine::run(control, verdict)
}

fn report_probe() -> ExitCode {
    match probe::probe() {
        Ok(()) => {
            println!("/dev/kvm runs guests");
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::line(format_args!("{}", log::chain(&error)));
            ExitCode::FAILURE
        }
    }
}
