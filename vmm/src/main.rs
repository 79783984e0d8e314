//! `enclave-vmm`: started by the daemon with its control socket as standard input, or by hand as `enclave-vmm probe`.

use std::{io::Write, os::fd::AsFd, process::ExitCode};

use api::sandbox::Layer;
use api::vmm::{Event, ExitReason};
use enclave_vmm::failure::LaunchError;
use enclave_vmm::sandbox::{
    self, Class,
    filter::{Filter, Verdict},
    jail::{self, Jail},
};
use enclave_vmm::{control::Control, log, machine, privileges, probe, signals};

const USAGE: &str = "\
enclave-vmm runs one enclave. The daemon enclaved starts it; there is nothing to run by hand but

  enclave-vmm probe     say whether this machine's /dev/kvm can run enclaves; exit status 0 if so
  enclave-vmm calls     print which system calls each of its threads may make
  enclave-vmm --version

The daemon starts it as root in the enclave's directory, with

  --user UID                  the user, and the group of that number, that it becomes
  --allow-missing LAYER,...   layers of its sandbox without which it runs if it cannot have them

With --log-forbidden-calls the kernel logs system calls that it may not make, where they would end it.
";

/// For developers, who want to know of such calls. The daemon does not say it; a program that is its `--vmm` can,
/// though no script: it is executed by a descriptor that its interpreter does not have.
const LOG_FORBIDDEN_CALLS: &str = "--log-forbidden-calls";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["probe"] => report_probe(),
        ["calls"] => {
            // Somebody who has read enough is no error.
            let _ = std::io::stdout().write_all(sandbox::calls::table().as_bytes());
            ExitCode::SUCCESS
        }
        ["--version"] => {
            println!("enclave-vmm {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        options => {
            if let Some(options) = Options::parse(options) {
                run(&options)
            } else {
                eprint!("{USAGE}");
                ExitCode::from(2)
            }
        }
    }
}

/// How the enclave is to be held.
#[derive(Debug, Default)]
struct Options {
    verdict: Verdict,
    jail: Jail,
}

impl Options {
    /// `None` for what is no option.
    fn parse(mut arguments: &[&str]) -> Option<Self> {
        let mut options = Self::default();
        loop {
            arguments = match arguments {
                [] => return Some(options),
                [LOG_FORBIDDEN_CALLS, rest @ ..] => {
                    options.verdict = Verdict::Log;
                    rest
                }
                ["--user", user, rest @ ..] => {
                    options.jail.user = Some(user.parse().ok()?);
                    rest
                }
                ["--allow-missing", layers, rest @ ..] => {
                    let layers: Result<Vec<Layer>, _> = layers.split(',').map(str::parse).collect();
                    options.jail.may_be_missing = layers.ok()?;
                    rest
                }
                _ => return None,
            };
        }
    }
}

/// Runs the enclave that the daemon describes; whatever happens is told to the daemon.
fn run(options: &Options) -> ExitCode {
    signals::restore_default_actions();
    let jailed = jail::close_other_descriptors().and_then(|()| options.jail.enter());
    privileges::give_up();
    let stdin = std::io::stdin();
    let control = Control::new(stdin.as_fd());
    let outcome = match jailed {
        Ok(()) => run_confined(&control, options.verdict),
        Err(error) => {
            // The daemon hears nothing of somebody who leaves without having read what it has sent.
            drop(control.receive_launch());
            Err(error.into())
        }
    };
    match outcome {
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
