//! Enclave application: ends with the exit code that is its argument, 0 without. As the kernel's `/init` it makes the
//! kernel panic before any heartbeat.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let code = std::env::args()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0);
    println!("exit-at-once: leaving with {code}");
    ExitCode::from(code)
}
