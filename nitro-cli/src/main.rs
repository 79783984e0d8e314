//! The `nitro-cli` program: [`nitro_cli::run`] over the process's own arguments.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nitro_cli::run(std::env::args_os())
}
