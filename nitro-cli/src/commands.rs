//! One module per command. Each has one `execute`, which prints the answer and returns, or returns why not.

mod attestation_root;
mod build_enclave;
mod console;
mod describe_eif;
mod describe_enclaves;
mod describe_pools;
mod doctor;
mod events;
mod explain;
mod generated;
mod logs;
mod pcr;
mod run_enclave;
mod sign_eif;
mod terminate_enclave;
mod verify_attestation;

use crate::arguments::{AttestationRoot, Command, DescribePools, Events};
use crate::environment::Environment;
use crate::error::CommandError;

/// Carries out `command`.
pub(crate) fn execute(command: Command, environment: &Environment) -> Result<(), CommandError> {
    match command {
        Command::BuildEnclave(options) => build_enclave::execute(&options, environment),
        Command::RunEnclave(options) => run_enclave::execute(&options, environment),
        Command::DescribeEnclaves(options) => describe_enclaves::execute(&options, environment),
        Command::DescribePools(DescribePools {}) => describe_pools::execute(environment),
        Command::Console(options) => console::execute(&options, environment),
        Command::Logs(options) => logs::execute(&options, environment),
        Command::Events(Events {}) => events::execute(environment),
        Command::TerminateEnclave(options) => terminate_enclave::execute(&options, environment),
        Command::DescribeEif(options) => describe_eif::execute(&options),
        Command::AttestationRoot(AttestationRoot {}) => attestation_root::execute(environment),
        Command::VerifyAttestation(options) => verify_attestation::execute(&options),
        Command::SignEif(options) => sign_eif::execute(&options),
        Command::Pcr(options) => pcr::execute(&options),
        Command::Explain(options) => {
            explain::execute(&options);
            Ok(())
        }
        Command::Doctor(options) => doctor::execute(&options, environment),
        Command::Completions(options) => generated::completions(&options),
        Command::ManPages(options) => generated::man_pages(&options),
    }
}
