//! The allocator's process: arguments and exit status; everything else is the library's.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use enclaved::allocator::{self, Arguments};

fn main() -> ExitCode {
    allocator::run(&Arguments::parse())
}
