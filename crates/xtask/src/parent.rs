//! `cargo xtask parent`: a command, or a shell, in a parent instance with everything installed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use parent_instance::{Exit, GuestFile, ParentInstance, Session};

use crate::error::Error;
use crate::installation::{self, Installation};
use crate::kernels::{self, Kind};
use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{apt, package};

/// `cargo xtask parent`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    /// The command and its arguments; a shell if there is none
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// The machine. `// parent:` lines in the end-to-end suites have the same options.
#[derive(Debug, Clone, Args)]
pub(crate) struct MachineOptions {
    /// Logical CPUs
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) cpus: u32,
    /// Hardware threads of each core: 1 or 2
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) threads: u32,
    /// NUMA nodes; CPUs, memory and hugepages are spread over them evenly
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) nodes: u32,
    /// Memory, with M or G after the number
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_size)]
    pub(crate) memory: u64,
    /// Hugepages of 2 MiB, in all
    #[arg(long = "hugepages-2m", value_name = "N", default_value_t = 512)]
    pub(crate) hugepages_2m: u64,
    /// Hugepages of 1 GiB, in all
    #[arg(long = "hugepages-1g", value_name = "N", default_value_t = 0)]
    pub(crate) hugepages_1g: u64,
    /// A directory of this host that the parent has at /share, read-write
    #[arg(long, value_name = "DIR")]
    pub(crate) share: Option<PathBuf>,
    /// Do not start the daemon
    #[arg(long)]
    pub(crate) no_daemon: bool,
    /// Make systemd process 1, and install none of enclaved: the parent has dpkg instead, and enclaved's package
    #[arg(long)]
    pub(crate) systemd: bool,
    /// A Debian package that the parent has, with all it depends on
    #[arg(long = "package", value_name = "PACKAGE")]
    pub(crate) packages: Vec<String>,
    /// Let virtual time count instructions, so that times measured inside repeat; slow
    #[arg(long)]
    pub(crate) icount: bool,
    /// End the parent if the command takes longer
    #[arg(long, value_name = "MINUTES", default_value_t = 30)]
    pub(crate) time_limit: u64,
}

/// Bytes from `512M` or `4G`.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size: write 512M or 4G");
    let (number, shift) = match text.char_indices().last() {
        Some((end, 'M')) => (&text[..end], 20),
        Some((end, 'G')) => (&text[..end], 30),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

/// A file of a parent instance.
pub(crate) fn file(host: &Path, guest: &str) -> GuestFile {
    GuestFile {
        host: host.to_owned(),
        guest: guest.to_owned(),
    }
}

/// Runs the command and ends with its exit status.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode, Error> {
    let systemd = arguments.machine.systemd;
    let mut steps = Steps::only_slow(installation::STEPS + 3 + usize::from(systemd));
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let installation = Installation::prepare(workspace, &mut steps)?;
    let kernel = steps.quiet(Kind::Parent.label(), || kernels::built(workspace, Kind::Parent))?;
    let mut config = installation.parent(workspace, &kernel, &arguments.machine);
    if systemd {
        let output = workspace.output("packages");
        let package = steps.quiet(package::STEP, || {
            package::built(workspace, &installation, package::VERSION, &output)
        })?;
        config.files.push(file(&package, "/root/enclaved.deb"));
    }
    let instance = steps.quiet("parent instance", || ParentInstance::prepare(config))?;
    let session = match arguments.command.as_slice() {
        [] => Session::shell(),
        command => Session::Command(command.to_vec()),
    };
    Ok(finish(&instance.run(&session)?))
}

/// Passes on how a command in a parent ended.
pub(crate) fn finish(exit: &Exit) -> ExitCode {
    if let Some(log) = &exit.log {
        let status = exit.status;
        eprintln!(
            "xtask: exit status {status} in the parent instance, whose serial log is {}",
            log.display()
        );
    }
    ExitCode::from(exit.status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("5G"), Ok(5 << 30));
        for wrong in ["", "G", "512", "1T", "-1G", "1.5G", "99999999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
