//! `cargo xtask`: everything that is done with this checkout beyond what cargo does itself.
//!
//! | command | what it does |
//! |---|---|
//! | `demo` | builds everything, shows one enclave from its start to its end, and gives a secret to another |
//! | `test` | lints, unit tests and the end-to-end suites; what continuous integration runs |
//! | `lint` | formatting, lints, documentation and dependencies only |
//! | `bench` | measures how an enclave starts, its security module, and how an image is built |
//! | `fuzz` | gives parsers inputs that nobody thought of |
//! | `parent` | runs a command, or a shell, in a parent instance |
//! | `package` | makes a Debian package of all that a host needs |
//!
//! The commands share their steps: Debian packages ([`apt`]), kernels ([`kernels`]), our programs ([`programs`]),
//! the example enclaves ([`examples`]), all of these together ([`installation`]), and the machine to run on ([`host`],
//! [`parent`]). A step that has nothing to do takes no time, so each command simply asks for all it needs. What is built
//! lies in cargo's target directory, except kernels and downloads, which outlive a checkout ([`workspace`]). Several
//! commands may run side by side in one checkout.

#![forbid(unsafe_code)]

mod apt;
mod bench;
mod cargo;
mod demo;
mod dependencies;
mod digest;
mod error;
mod examples;
mod fuzz;
mod host;
mod installation;
mod kernels;
mod lint;
mod lock;
mod oracle;
mod package;
mod parent;
mod process;
mod programs;
mod report;
mod steps;
mod suites;
mod test;
mod totals;
mod verifiers;
mod vsock_tools;
mod workspace;

use std::error::Error as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Error;
use crate::workspace::Workspace;

/// Builds, demonstrates and tests enclaved.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build everything, then run, watch and end one enclave, and give a secret to another that proves what it is
    Demo(demo::Arguments),
    /// Check formatting, lints, documentation and dependencies, then run all tests; or run some end-to-end suites
    Test(test::Arguments),
    /// Check formatting, lints, documentation and dependencies
    Lint,
    /// Run a command, or a shell, as root in a parent instance with everything installed
    ///
    /// The command starts in /root, where hello.eif and attest.eif are. Its arguments arrive as they are: for a pipeline, run `sh -c`. Its
    /// standard input is empty; standard output, standard error and exit status are passed on. busybox, enclaved,
    /// enclave-vmm, nitro-enclaves-allocator, nitro-cli, vsock-proxy and the example attest-client are in PATH, and the daemon runs unless --no-daemon is given; its
    /// log is /var/log/enclaved.log. Without a command, a shell uses this terminal. With --systemd nothing of this is
    /// installed but attest-client, and the package that installs it is in /root.
    Parent(parent::Arguments),
    /// Measure
    Bench(bench::Arguments),
    /// Fuzz the parsers of bytes that come from outside
    Fuzz(fuzz::Arguments),
    /// Build a Debian package that installs everything on a host
    Package(package::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Error> {
    let workspace = Workspace::find()?;
    match command {
        Command::Demo(arguments) => demo::run(&workspace, &arguments),
        Command::Test(arguments) => Ok(test::run(&workspace, &arguments)),
        Command::Lint => lint::run(&workspace),
        Command::Parent(arguments) => parent::run(&workspace, &arguments),
        Command::Bench(arguments) => bench::run(&workspace, &arguments),
        Command::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Command::Package(arguments) => package::run(&workspace, &arguments),
    }
}
