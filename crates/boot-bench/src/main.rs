//! `boot-bench`: what it costs to start an enclave, measured from outside the VMM.
//!
//! # Method
//!
//! It runs as root on a parent whose kernel has tracepoints, best one whose virtual time counts instructions
//! (`cargo xtask bench boot` makes such a parent): there a nanosecond is an instruction, whatever the host does
//! meanwhile. The VMM is not changed and does not help:
//!
//! | figure | how |
//! |---|---|
//! | VMM exec → first `KVM_RUN` | tracepoints `sched:sched_process_exec` and, once, `kvm:kvm_entry` |
//! | VMM exec → first userspace byte | the enclave's process 1 writes a byte to a port: tracepoint `kvm:kvm_pio` |
//! | private memory without guest memory | `/proc/PID/smaps` while that process 1 waits in its first `pause` |
//! | system calls before the first `KVM_RUN` | tracepoints of `syscalls`, in runs that are not timed |
//! | SHA-384 over the EIF | [`hash`], a process that does nothing else |
//!
//! # Parts
//!
//! ```text
//! guest       the enclave: a process 1 of a few instructions, its initramfs, an EIF for each kernel
//! bench::Vmm  stands in for the daemon: guest memory, the launch message, one VMM process
//! tracefs     which events the kernel records
//!   │ text
//! trace       what the records say: a Timeline, SystemCalls
//! smaps       the private memory of a process
//! measure     repeats all of it, into bench::Samples with a median
//! report      the table, beside the reference figures and the aims
//! ```

#![forbid(unsafe_code)]

mod error;
mod guest;
mod hash;
mod measure;
mod report;
mod smaps;
mod trace;
mod tracefs;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{error::Error, measure::Plan};

/// Measures how an enclave starts. Run as root on a parent.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start enclaves and print medians
    Run {
        /// The VMM to measure
        #[arg(long, value_name = "FILE", default_value = "/usr/bin/enclave-vmm")]
        vmm: PathBuf,
        /// How often each figure is measured
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// The enclave's memory in MiB, a multiple of 2
        #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
        memory: u64,
        /// Kernels of the enclave, each in any format that the VMM boots
        #[arg(required = true, value_name = "KERNEL")]
        kernels: Vec<PathBuf>,
    },
    /// Measure SHA-384 over an EIF and print nanoseconds
    Hash {
        /// The EIF
        eif: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run {
            vmm,
            runs,
            memory,
            kernels,
        } => run(&Plan {
            vmm,
            runs,
            memory: memory << 20,
            kernels,
        }),
        Command::Hash { eif } => hash::time(&eif).map(|time| println!("{}", time.as_nanos())),
    };
    bench::exit_code("boot-bench", result)
}

fn run(plan: &Plan) -> Result<(), Error> {
    let results = measure::run(plan)?;
    print!("{}", report::text(plan, &results));
    Ok(())
}
