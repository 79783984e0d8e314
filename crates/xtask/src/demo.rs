//! `cargo xtask demo`: one enclave from its build to its end, on this host's KVM if that works, else in a parent
//! instance. What is shown is `demo.sh`, which anybody can type.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Args, Parser};
use parent_instance::{ParentInstance, Session};

use crate::apt;
use crate::error::{Error, at};
use crate::host::{self, Kvm};
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

/// A parent as `cargo xtask parent` makes it without options: enough for one enclave of 512 MiB and two CPUs.
#[derive(Debug, Parser)]
struct DefaultMachine {
    #[command(flatten)]
    options: MachineOptions,
}

/// Builds, then demonstrates.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode, Error> {
    let keep = arguments.keep || !arguments.trailing.is_empty();
    let mut steps = Steps::new(installation::STEPS + 4);
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let installation = Installation::prepare(workspace, &mut steps)?;
    let kvm = steps.quiet("can this host's KVM run guests?", || {
        host::probe(&installation.programs)
    })?;
    match kvm {
        Kvm::Works => {
            eprintln!("      yes: the enclave runs here");
            steps.announce("no parent instance is needed");
            steps.announce("demonstration");
            on_this_host(workspace, &installation, keep)
        }
        Kvm::Unusable { reason } => {
            eprintln!("      no, so the enclave runs in a parent instance ({reason})");
            in_a_parent(workspace, &installation, keep, &mut steps)
        }
    }
}

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
        Session::Terminal(words(&["sh", "-c", "sh demo.sh hello.eif; exec sh -l"]))
    } else {
        Session::Command(words(&["sh", "demo.sh", "hello.eif"]))
    };
    Ok(parent::finish(&instance.run(&session)?))
}

fn on_this_host(workspace: &Workspace, installation: &Installation, keep: bool) -> Result<ExitCode, Error> {
    let mut shell = Command::new("sh");
    shell.arg(script(workspace, "demo_on_host.sh", ON_HOST)?);
    shell
        .arg(script(workspace, "demo.sh", DEMO)?)
        .arg(installation.hello.eif());
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
    Ok(if process::shown(&mut shell)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
