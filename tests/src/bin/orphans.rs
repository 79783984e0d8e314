//! Enclave application: leaves children to process 1, one after the other, and sees whether each is gone after its end.
//!
//! It runs itself as `orphans parent`, which runs itself as `orphans child`, prints that one's process id and ends.

#![forbid(unsafe_code)]

use std::io;
use std::path::Path;
use std::process::Command;

use end_to_end_tests::{guest, poll};

/// How many children are left behind.
const ORPHANS: usize = 20;

fn main() -> io::Result<()> {
    let itself = |role: &str| {
        let mut command = Command::new("/proc/self/exe");
        command.arg(role);
        command
    };
    match std::env::args().nth(1).as_deref() {
        Some("parent") => {
            println!("{}", itself("child").spawn()?.id());
            return Ok(());
        }
        Some("child") => return Ok(()),
        _ => {}
    }
    for _ in 0..ORPHANS {
        let output = itself("parent").output()?;
        let process = Path::new("/proc").join(String::from_utf8_lossy(&output.stdout).trim_end());
        // As a zombie it would stay there.
        poll::until("the orphan to be reaped", || (!process.exists()).then_some(()));
    }
    println!("orphans: all {ORPHANS} are gone");
    guest::idle();
}
