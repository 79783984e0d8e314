//! `cargo xtask demo`: one enclave from its start to its end, then another that is given a secret once it has proved what it
//! is; on this host if that can run them, else in a parent instance. What is shown is `demo.sh`, which anybody can type.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser};
use parent_instance::{ParentInstance, Session};

use crate::apt;
use crate::error::{Error, at};
use crate::host::{self, Host};
use crate::installation::{self, Installation};
use crate::kernels::{self, Kind};
use crate::parent::{self, MachineOptions};
use crate::process;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// `cargo xtask demo`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave a shell where the enclave ran, with the daemon still there
    #[arg(long)]
    keep: bool,
    /// The same after `--`, as other cargo commands have the arguments of what they run
    #[arg(last = true, hide = true, value_parser = ["--keep"])]
    trailing: Vec<String>,
}

/// A parent as `cargo xtask parent` makes it without options: enough for one enclave of 512 MiB and two CPUs at a time.
#[derive(Debug, Parser)]
struct DefaultMachine {
    #[command(flatten)]
    options: MachineOptions,
}

/// Builds, then demonstrates.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode, Error> {
    let keep = arguments.keep || !arguments.trailing.is_empty();
    let mut steps = Steps::new(installation::STEPS + 5);
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let installation = Installation::prepare(workspace, &mut steps)?;
    let host = steps.quiet("can this host run the enclave?", || {
        host::judge(&installation.programs)
    })?;
    match host {
        Host::Fit => {
            steps.announce("demonstration, on this host");
            match on_this_host(workspace, &installation, keep)? {
                Demonstration::Done(code) => return Ok(code),
                // The script has said how many.
                Demonstration::NoHugepages => {}
            }
        }
        Host::Unfit { reason } => steps.announce(&format!("not on this host: {reason}")),
    }
    in_a_parent(workspace, &installation, keep, &mut steps)
}

/// What became of the demonstration on this host.
#[derive(Debug, PartialEq)]
enum Demonstration {
    /// It was shown, or failed.
    Done(ExitCode),
    /// It was not begun: there are not enough hugepages for the enclave.
    NoHugepages,
}

impl Demonstration {
    /// From the exit status of `demo_on_host.sh`.
    fn ended_with(status: Option<i32>) -> Self {
        match status {
            Some(0) => Self::Done(ExitCode::SUCCESS),
            Some(NO_HUGEPAGES) => Self::NoHugepages,
            _ => Self::Done(ExitCode::FAILURE),
        }
    }
}

/// Exit status of `demo_on_host.sh` when there are not enough hugepages.
const NO_HUGEPAGES: i32 = 75;

fn in_a_parent(
    workspace: &Workspace,
    installation: &Installation,
    keep: bool,
    steps: &mut Steps,
) -> Result<ExitCode, Error> {
    let kernel = steps.quiet(Kind::Parent.label(), || kernels::built(workspace, Kind::Parent))?;
    let machine = DefaultMachine::parse_from(["parent"]).options;
    let mut config = installation.parent(workspace, &kernel, &machine);
    config.files.push(parent::file(
        &script(workspace, "demo.sh", DEMO)?,
        "/root/demo.sh",
    ));
    steps.announce("demonstration, in a parent instance");
    let instance = ParentInstance::prepare(config)?;
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let session = if keep {
        Session::Terminal(words(&[
            "sh",
            "-c",
            "sh demo.sh hello.eif attest.eif; exec sh -l",
        ]))
    } else {
        Session::Command(words(&["sh", "demo.sh", "hello.eif", "attest.eif"]))
    };
    Ok(parent::finish(&instance.run(&session)?))
}

fn on_this_host(
    workspace: &Workspace,
    installation: &Installation,
    keep: bool,
) -> Result<Demonstration, Error> {
    let mut shell = Command::new("sh");
    shell.arg(script(workspace, "demo_on_host.sh", ON_HOST)?);
    shell
        .arg(script(workspace, "demo.sh", DEMO)?)
        .arg(installation.examples.hello())
        .arg(installation.examples.attest());
    if keep {
        shell.arg("keep");
    }
    let programs = installation
        .programs
        .of_the_parent()
        .into_iter()
        .filter_map(Path::parent)
        .map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = programs.chain(env::split_paths(&path)).collect();
    if let Ok(path) = env::join_paths(directories) {
        shell.env("PATH", path);
    }
    Ok(Demonstration::ended_with(process::shown(&mut shell)?.code()))
}

const DEMO: &str = include_str!("demo.sh");
const ON_HOST: &str = include_str!("demo_on_host.sh");

/// A script of this program as a file.
fn script(workspace: &Workspace, name: &str, text: &str) -> Result<PathBuf, Error> {
    let path = workspace.output(name);
    // In one step, because another demonstration may be reading it.
    let unfinished = workspace.output(&format!("{name}-{}", std::process::id()));
    fs::write(&unfinished, text).map_err(at("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(at("create", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `demo_on_host.sh` where the files of `pages` are all that the kernel says of hugepages. Since these are plain
    /// files, writing to one makes no page free. Returns the outcome and what was written in the end.
    fn outcome(pages: &[(&str, &str)]) -> (Demonstration, String) {
        let directory = tempfile::tempdir().expect("directory");
        for (name, text) in pages {
            fs::write(directory.path().join(name), text).expect("write");
        }
        let script = directory.path().join("demo_on_host.sh");
        fs::write(&script, ON_HOST).expect("write");
        let mut shell = Command::new("sh");
        shell.arg(script).args(["demo.sh", "hello.eif", "attest.eif"]);
        let output = shell.env("HUGEPAGES", directory.path()).output().expect("sh");
        let reserved = fs::read_to_string(directory.path().join("nr_hugepages")).unwrap_or_default();
        (Demonstration::ended_with(output.status.code()), reserved)
    }

    #[test]
    fn a_host_that_cannot_reserve_hugepages_is_left_as_it_was() {
        let promised = [
            ("nr_hugepages", "300\n"),
            ("free_hugepages", "300\n"),
            ("resv_hugepages", "100\n"),
        ];
        assert_eq!(
            outcome(&promised),
            (Demonstration::NoHugepages, "300\n".to_owned())
        );
        assert_eq!(outcome(&[]), (Demonstration::NoHugepages, String::new()));
    }

    #[test]
    fn other_ends_are_those_of_the_demonstration() {
        assert_eq!(
            Demonstration::ended_with(Some(0)),
            Demonstration::Done(ExitCode::SUCCESS)
        );
        for failed in [Some(1), Some(130), None] {
            assert_eq!(
                Demonstration::ended_with(failed),
                Demonstration::Done(ExitCode::FAILURE)
            );
        }
    }
}
