//! The command line of enclaved: AWS's `nitro-cli` 1.5 for scripts, with the enclaved daemon behind it.
//!
//! # How one command runs
//!
//! ```text
//! argv ─► arguments      clap: which command, which options            usage error: exit 2
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
//! A variant of `arguments::Command` with its options, a module in `commands/` with one `execute` function, and the
//! line in `commands::execute` that joins them.

#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod container_builder;
mod daemon;
mod environment;
mod error;
mod files;
mod hex;
mod image_source;
mod interruption;
mod measurements;
mod output;
mod progress;
mod signing;
mod values;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::environment::Environment;

/// Carries out one command line, the program's name first, and says how the process is to end.
///
/// Reads the environment variables `ENCLAVED_SOCKET`, `NITRO_CLI_ARTIFACTS`, `NITRO_CLI_BLOBS` and `SOURCE_DATE_EPOCH`, and for images
/// from elsewhere those of Docker and Podman; writes to standard output and standard
/// error. The exit code is 0, or 2 after a usage error, or the number of the `[ ENN ]` error that was printed.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Arguments::try_parse_from(arguments) {
        Ok(Arguments { command }) => command,
        Err(usage) => return end_with_usage(&usage),
    };
    match commands::execute(command, &Environment::of_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    }
}

/// Prints what clap has to say: help and version on standard output (exit 0), errors on standard error (exit 2).
fn end_with_usage(usage: &clap::Error) -> ExitCode {
    // A reader that has gone away has seen all it wanted.
    let _ = usage.print();
    ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
}
