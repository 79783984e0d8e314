//! The command line of enclaved: AWS's `nitro-cli` 1.5 for scripts, with the enclaved daemon behind it.
//!
//! # How one command runs
//!
//! ```text
//! argv ─► arguments      clap: which command, which options            usage error: exit 2
//!      ─► log            the log is opened, if there is one            E19
//!      ─► values         text to numbers, with AWS's own rules         E03
//!      ─► commands/…     does the work; asks the daemon (daemon) where an enclave is concerned
//!      ─► output         JSON to standard output, everything else to standard error
//!      ─► error          one failure ─► text on standard error and one exit code
//! ```
//!
//! A command returns `Result<(), CommandError>` and never ends the process itself: [`run`] turns the outcome into
//! text and exit code in one place. Building, signing and describing images needs no daemon.
//!
//! # Privileges
//!
//! The process has those of its caller and nothing more. It opens the EIF itself and passes the descriptor, so the
//! daemon, which is root, never opens a path that a client names.
//!
//! # Adding a command
//!
//! A variant of `arguments::Command` with its options and an example, which a test runs (`tests/cli/examples.rs`); a module in
//! `commands/` with one `execute` function; and the line in `commands::execute` that joins them. Completions and manual pages
//! follow by themselves.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod container_builder;
mod daemon;
mod environment;
mod error;
mod explanations;
mod files;
mod foreground;
mod hex;
mod image_metadata;
mod image_source;
mod interruption;
mod log;
mod measurements;
mod output;
mod progress;
mod run_configuration;
mod signals;
mod signing;
mod streaming;
mod table;
mod time;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::environment::Environment;
use crate::error::{CommandError, Reporter};
use crate::log::{Level, Log};

/// Carries out one command line, the program's name first, and says how the process is to end.
///
/// Reads the environment variables that `--help` lists, and for images from elsewhere those of Docker and Podman; writes to standard
/// output, standard error and the log. The exit code is 0, or 2 after a usage error, or the number of the `[ ENN ]` error that was printed.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Arguments::try_parse_from(arguments) {
        Ok(Arguments { command }) => command,
        Err(usage) => return end_with_usage(&usage),
    };
    let name = command.name();
    let environment = Environment::of_process();
    let report = |log: &Log, error: CommandError| {
        error.report(&Reporter {
            command: name,
            log,
            backtrace: environment.backtrace,
        });
        ExitCode::from(error.exit_code())
    };
    let log = match Log::open(&environment.logs, environment.log_level) {
        Ok(log) => log,
        Err(failure) => return report(&Log::none(), failure.into()),
    };
    log.record(Level::Info, name);
    match commands::execute(command, &environment) {
        Ok(()) => {
            log.record(Level::Info, format_args!("{name} is done"));
            ExitCode::SUCCESS
        }
        Err(error) => report(&log, error),
    }
}

/// Prints what clap has to say: help and version on standard output (exit 0), errors on standard error (exit 2).
fn end_with_usage(usage: &clap::Error) -> ExitCode {
    // A reader that has gone away has seen all it wanted.
    let _ = usage.print();
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}
