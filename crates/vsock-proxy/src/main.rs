//! The `vsock-proxy` program: [`vsock_proxy::run`] over the process's own arguments.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    vsock_proxy::run(&vsock_proxy::Arguments::parse())
}
