//! `cargo xtask bench vsock`: streams between an enclave and its parent with either backend, beside QEMU's microvm with vhost-vsock
//! of its own, all in one parent instance, whose last CPU is the guest's. The program `vsock-bench` measures; how, it says itself.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use parent_instance::{Config, Exit, ParentInstance, Session};

use crate::apt;
use crate::error::Error;
use crate::examples::{self, BUSYBOX};
use crate::kernels::{self, Kind};
use crate::parent::{self, file};
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Our VMM.
const VMM: &str = "enclave-vmm";
/// Package and program that measures.
const BENCH: &str = "vsock-bench";
/// Process 1 of the guest.
const GUEST: &str = "vsock-bench-guest";

/// Debian's package with QEMU, and its program.
const QEMU_PACKAGE: &str = "qemu-system-x86";
const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// Memory of the guest in MiB; as many hugepages of 2 MiB as that takes are reserved.
const GUEST_MEMORY: u64 = 256;

/// Memory of the parent: for that, and for QEMU and all it depends on, once as the initramfs and once unpacked.
const PARENT_MEMORY: u64 = 2 << 30;

/// How long a parent may take to start.
const START_LIMIT: Duration = Duration::from_mins(1);

/// `cargo xtask bench vsock`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How often each figure is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// What time is measured in
    #[arg(long, value_enum, default_value = "instructions")]
    clock: Clock,
    /// CPUs of the parent: two, of which the guest has one to itself as an enclave does, or one that all share
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=2))]
    cpus: u32,
    /// Measure our backends alone
    #[arg(long)]
    ours: bool,
    /// Instead of measuring, count what the parent does for each operation: system calls, thread switches, exits, packets
    #[arg(long)]
    events: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clock {
    /// Instructions of the parent, whose CPUs take turns: figures repeat whatever else the host does
    Instructions,
    /// Seconds
    Wall,
}

impl Clock {
    /// How long a round may take: twice what it takes on a busy host.
    fn round_limit(self) -> Duration {
        match self {
            Self::Instructions => Duration::from_mins(1),
            Self::Wall => Duration::from_mins(10),
        }
    }

    /// How often it is tried: with the one clock a parent sometimes stands still (docs/decisions/0024), with the other it must not.
    fn attempts(self) -> u32 {
        match self {
            Self::Instructions => 4,
            Self::Wall => 1,
        }
    }

    /// Seconds of the parent's after which a guest is given up.
    fn limit(self) -> u32 {
        match self {
            Self::Instructions => 10,
            Self::Wall => 60,
        }
    }
}

pub(super) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode, Error> {
    let mut steps = Steps::new(6);
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let [vmm, bench, guest] = steps.quiet("programs", || {
        super::programs_of(workspace, BENCH, [VMM, BENCH, GUEST])
    })?;
    let stripped = workspace.output(GUEST);
    examples::strip(workspace, &guest, &stripped)?;
    let enclave = steps.quiet(Kind::Enclave.label(), || kernels::built(workspace, Kind::Enclave))?;
    let parent = steps.quiet(Kind::Parent.label(), || kernels::built(workspace, Kind::Parent))?;
    let packages = if arguments.ours {
        vec![]
    } else {
        vec![QEMU_PACKAGE.to_owned()]
    };
    let config = Config {
        cpus: arguments.cpus,
        memory: PARENT_MEMORY,
        hugepages_2m: GUEST_MEMORY / 2,
        icount: arguments.clock == Clock::Instructions,
        time_limit: START_LIMIT + arguments.clock.round_limit() * arguments.runs,
        packages,
        files: vec![
            file(&vmm, "/usr/bin/enclave-vmm"),
            file(&bench, "/usr/bin/vsock-bench"),
            file(&stripped, "/usr/bin/vsock-bench-guest"),
            file(&enclave.bzimage(), "/root/bzImage"),
        ],
        ..Config::new(parent.bzimage(), BUSYBOX.into(), workspace.cache().join("debian"))
    };
    let instance = steps.quiet("QEMU for the parent instance", || ParentInstance::prepare(config))?;
    steps.announce("measuring in a parent instance");
    let Arguments {
        runs, clock, cpus, ..
    } = *arguments;
    let (cpu, limit) = (cpus - 1, clock.limit());
    let mut command =
        format!("{BENCH} --runs {runs} --memory {GUEST_MEMORY} --cpu {cpu} --limit {limit} bzImage");
    if !arguments.ours {
        command = format!("{command} --qemu {QEMU}");
    }
    if arguments.events {
        command += " --events";
    }
    let session = Session::Command(command.split(' ').map(str::to_owned).collect());
    Ok(parent::finish(&measure(&instance, &session, clock.attempts())?))
}

/// All rounds in one parent, or in the next if it stands still.
fn measure(
    instance: &ParentInstance,
    session: &Session,
    attempts: u32,
) -> Result<Exit, parent_instance::Error> {
    for attempt in 1..attempts {
        match instance.run(session) {
            Err(error @ parent_instance::Error::TimeLimit { .. }) => {
                eprintln!("\n{error}; attempt {attempt} of {attempts} is over");
            }
            result => return result,
        }
    }
    instance.run(session)
}
