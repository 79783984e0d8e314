//! The command: its line, where its configuration is, and what it prints.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::configuration::{Configuration, INSTALL_DIRECTORY};
use super::sysfs::{Sysfs, ThisKernel};
use super::{Allocator, AllocatorError};

/// An example, for --help.
const EXAMPLE: &str = "Example of /etc/nitro_enclaves/allocator.yaml:\n  \
    ---\n  \
    memory_mib: 512\n  \
    cpu_count: 2            # or, in its place, cpu_pool: 2,3,6-9\n\n\
    The same for two enclaves, as a list:\n  \
    - memory_mib: 512\n    \
    cpu_count: 2\n  \
    - memory_mib: 1024\n    \
    cpu_count: 4\n\n\
    Then: sudo nitro-enclaves-allocator";

/// The nitro-enclaves-allocator command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "nitro-enclaves-allocator",
    version,
    about = "Sets CPUs and memory of this machine apart for enclaves",
    long_about = "Sets CPUs and memory of this machine apart for enclaves, as allocator.yaml says: hugepages are reserved \
                  on the NUMA node of the CPUs, CPUs are whole cores of one node and never CPU 0's core.\n\n\
                  Run it early, before memory is fragmented: nitro-enclaves-allocator.service does so at boot. Running \
                  it again replaces the previous reservation, and is refused while an enclave runs.",
    after_help = EXAMPLE
)]
pub struct Arguments {
    /// What to reserve [default: etc/nitro_enclaves/allocator.yaml below $NITRO_CLI_INSTALL_DIR, else below /;
    /// if that does not exist, 512 MiB and 2 CPUs]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// The daemon's directory for run-time state, where the pool is written
    #[arg(long, value_name = "PATH", default_value = "/run/enclaved")]
    pub run_directory: PathBuf,

    /// Give everything back: all hugepages that are not in use, and the pool
    #[arg(long, conflicts_with = "config")]
    pub release: bool,
}

/// Does what the command line says, on this machine. Results go to standard output, the rest to standard error.
pub fn run(arguments: &Arguments) -> ExitCode {
    let allocator = Allocator {
        sysfs: Sysfs::of_this_machine(),
        kernel: ThisKernel,
        run_directory: arguments.run_directory.clone(),
    };
    let done = if arguments.release {
        allocator.release().map(|released| released.to_string())
    } else {
        configuration_of(arguments)
            .and_then(|configuration| allocator.allocate(&configuration))
            .map(|pool| {
                let lines: Vec<_> = pool
                    .entries
                    .iter()
                    .map(|entry| format!("Reserved {entry}."))
                    .collect();
                lines.join("\n")
            })
    };
    match done {
        Ok(said) => {
            // It is done, whether or not anybody reads it.
            let _ = writeln!(io::stdout(), "{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("Error: {}.", explained(&error));
            ExitCode::FAILURE
        }
    }
}

fn configuration_of(arguments: &Arguments) -> Result<Configuration, AllocatorError> {
    if let Some(path) = &arguments.config {
        return Configuration::read(path)?.ok_or_else(|| AllocatorError::NoConfiguration(path.clone()));
    }
    let path = Configuration::default_path(env::var_os(INSTALL_DIRECTORY).as_deref());
    let read = Configuration::read(&path)?;
    Ok(read.unwrap_or_else(|| {
        eprintln!(
            "{} does not exist; reserving the default, memory_mib: 512 and cpu_count: 2.",
            path.display()
        );
        Configuration::default()
    }))
}

/// An error with its causes, and what to do if it is one of rights.
pub(super) fn explained(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::PermissionDenied) {
            text.push_str("; run the allocator as root");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::pool::PoolError;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("memory_mib: 512\n  cpu_count: 2"), "{help}");
    }

    #[test]
    fn missing_rights_are_told_with_their_remedy() {
        let error = PoolError::Io {
            action: "open",
            path: "/run/enclaved/pool.lock".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(
            explained(&AllocatorError::from(error)),
            "cannot open /run/enclaved/pool.lock: permission denied; run the allocator as root"
        );
    }
}
