//! Lines for the operator, on standard error, which the daemon collects.
//!
//! Not with `eprintln!`: that panics when nobody reads any more, and a guest can make this process write a line after
//! its daemon has gone.

use std::{
    fmt,
    io::{self, Write},
};

/// Writes one line with one system call, if it can be written.
pub fn line(text: fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    if cfg!(test) {
        // Which the test harness keeps to itself unless a test fails.
        return eprint!("{line}");
    }
    // There is nowhere else to say that standard error is broken.
    drop(io::stderr().write_all(line.as_bytes()));
}
