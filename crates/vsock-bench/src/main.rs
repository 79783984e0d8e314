//! `vsock-bench`: how fast an enclave's vsock is with either backend, beside vhost-vsock without us.
//!
//! # Method
//!
//! It runs as root on a parent with `/dev/vhost-vsock` (`cargo xtask bench vsock` makes such a parent). Three VMMs start the
//! same guest, one after the other, with 256 MiB and one vCPU: `enclave-vmm` with the kernel backend, `enclave-vmm` with the
//! Unix backend, and QEMU's microvm with a `vhost-vsock-device`. `enclave-vmm` is started as the daemon starts it, but without a
//! daemon: that one carries no byte of the guest's. The guest has a CPU to itself, as with the daemon, and all else is kept off it. Where
//! there is but one, which the daemon would refuse, they share it.
//!
//! # Parts
//!
//! ```text
//! guest     kernel, initramfs with `vsock-bench-guest`, EIF
//! machine   a guest in one of the VMMs, ready
//! way       connections between the parent and it: AF_VSOCK or Unix sockets
//! measure   one figure
//! events    what the parent's kernel does meanwhile, in runs that are not timed
//! rounds    repeats all of it, into bench::Samples
//! report    the table
//! ```

#![forbid(unsafe_code)]

mod error;
mod events;
mod guest;
mod machine;
mod measure;
mod report;
mod rounds;
mod way;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;

use crate::{
    error::Error,
    machine::{Carrier, Host},
};

/// Measures an enclave's vsock. Run as root on a parent.
#[derive(Debug, Parser)]
struct Arguments {
    /// Our VMM
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/enclave-vmm")]
    vmm: PathBuf,
    /// The other VMM; without it, only ours is measured
    #[arg(long, value_name = "FILE")]
    qemu: Option<PathBuf>,
    /// Process 1 of the guest
    #[arg(long, value_name = "FILE", default_value = "/usr/bin/vsock-bench-guest")]
    guest: PathBuf,
    /// How often each figure is measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The guest's memory in MiB, a multiple of 2
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: u64,
    /// The CPU of the guest's vCPU, which nothing else has if there are others
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    cpu: u32,
    /// How long anything may take that is waited for
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    limit: u64,
    /// Instead of measuring, count what the parent does for each operation: system calls, thread switches, exits, packets
    #[arg(long)]
    events: bool,
    /// The guest's kernel, a bzImage
    kernel: PathBuf,
}

fn main() -> ExitCode {
    bench::exit_code("vsock-bench", run(Arguments::parse()))
}

fn run(arguments: Arguments) -> Result<(), Error> {
    machine::leave_to_guest(arguments.cpu)?;
    let directory = machine::directory()?;
    let carriers: Vec<_> = Carrier::ALL
        .into_iter()
        .filter(|carrier| *carrier != Carrier::Raw || arguments.qemu.is_some())
        .collect();
    let host = Host {
        guest: guest::build(&arguments.kernel, &arguments.guest, &directory)?,
        vmm: arguments.vmm,
        qemu: arguments.qemu.unwrap_or_default(),
        memory: arguments.memory,
        cpu: arguments.cpu,
        directory,
        limit: Duration::from_secs(arguments.limit),
    };
    if arguments.events {
        print!("{}", rounds::events(&host, &carriers)?);
        return Ok(());
    }
    let results = rounds::run(&host, &carriers, arguments.runs)?;
    print!("{}", report::text(&results));
    Ok(())
}
