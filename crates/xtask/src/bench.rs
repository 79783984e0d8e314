//! `cargo xtask bench nsm` is in [`nsm`], `cargo xtask bench image` in [`image`], `cargo xtask bench vsock` in [`vsock`].
//! `cargo xtask bench boot`: how an enclave starts, measured by the program `boot-bench` inside one parent instance.
//!
//! That parent has one processor and its virtual time counts instructions, so the figures repeat on a busy host; what a
//! real processor makes of an instruction is not in them. The machine is that of the reference figures: an enclave of
//! 256 MiB and one vCPU.

mod image;
mod nsm;
mod vsock;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use parent_instance::{Config, ParentInstance, Session};

use crate::cargo;
use crate::error::Error;
use crate::examples::BUSYBOX;
use crate::kernels::{self, Kind};
use crate::parent::{self, file};
use crate::programs;
use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{apt, process};

/// Package and program that measures.
const BENCH: &str = "boot-bench";

/// Memory of the enclave in MiB; as many hugepages of 2 MiB as that takes are reserved.
const ENCLAVE_MEMORY: u64 = 256;

/// Far more than it takes on a busy host.
const TIME_LIMIT: Duration = Duration::from_hours(1);

/// `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How an enclave starts: time, memory and system calls of the VMM, with either form of the kernel
    Boot {
        /// How often each figure is measured
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// How long building an image of 1 GiB takes, and how much memory, beside tar and sha384sum
    Image {
        /// How often each figure is measured
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// How often an enclave's security module answers, and how fast attestation documents are signed
    Nsm {
        /// How often each figure is measured
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
    },
    /// How fast an enclave's vsock is with either backend, beside vhost-vsock without us
    Vsock(vsock::Arguments),
}

/// Measures and prints a table.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode, Error> {
    match &arguments.what {
        What::Boot { runs } => boot(workspace, *runs),
        What::Image { runs } => image::run(workspace, *runs),
        What::Nsm { runs } => nsm::run(workspace, *runs),
        What::Vsock(arguments) => vsock::run(workspace, arguments),
    }
}

fn boot(workspace: &Workspace, runs: u32) -> Result<ExitCode, Error> {
    let mut steps = Steps::new(6);
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let programs = steps.quiet("programs", || programs::built(workspace))?;
    let bench = steps.quiet("boot-bench", || built(workspace))?;
    let enclave = steps.quiet(Kind::Enclave.label(), || kernels::built(workspace, Kind::Enclave))?;
    let parent = steps.quiet(Kind::Parent.label(), || kernels::built(workspace, Kind::Parent))?;
    let config = Config {
        cpus: 1,
        hugepages_2m: ENCLAVE_MEMORY / 2,
        icount: true,
        time_limit: TIME_LIMIT,
        files: vec![
            file(&programs.enclave_vmm, "/usr/bin/enclave-vmm"),
            file(&bench, "/usr/bin/boot-bench"),
            file(&enclave.bzimage(), "/root/bzImage"),
            file(&enclave.vmlinux(), "/root/vmlinux"),
        ],
        ..Config::new(parent.bzimage(), BUSYBOX.into(), workspace.cache().join("debian"))
    };
    steps.announce("measuring, in a parent instance whose time counts instructions");
    let command = format!("{BENCH} run --runs {runs} --memory {ENCLAVE_MEMORY} bzImage vmlinux");
    let session = Session::Command(command.split(' ').map(str::to_owned).collect());
    Ok(parent::finish(&ParentInstance::prepare(config)?.run(&session)?))
}

fn built(workspace: &Workspace) -> Result<PathBuf, Error> {
    let [bench] = programs_of(workspace, BENCH, [BENCH])?;
    Ok(bench)
}

/// Builds the programs of these names, of a package and of our own, and nothing else. What they share has the features that
/// all of our programs together ask for: so it is built once, whoever builds.
fn programs_of<const N: usize>(
    workspace: &Workspace,
    package: &str,
    names: [&str; N],
) -> Result<[PathBuf; N], Error> {
    let mut build = cargo::cargo(workspace, "build");
    cargo::release_static(&mut build).args(["--message-format", "json-render-diagnostics"]);
    for package in programs::PACKAGES.into_iter().chain([package]) {
        build.args(["--package", package]);
    }
    for name in names {
        build.args(["--bin", name]);
    }
    let messages = process::captured(&mut build, &workspace.log(package))?;
    let executables = cargo::executables(&messages);
    let mut paths = [const { PathBuf::new() }; N];
    for (path, name) in paths.iter_mut().zip(names) {
        let built = executables
            .iter()
            .find(|executable| executable.kind == "bin" && executable.name == name);
        *path = built.ok_or_else(|| Error::NotBuilt(name.into()))?.path.clone();
    }
    Ok(paths)
}
