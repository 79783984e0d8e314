//! What a guest would try that commands its VMM's process and wants the machine to have nothing left for others. It goes where a VMM
//! stays first, and has the limits of one, but no filter of system calls.
//!
//! Each line that is found is what was taken and how much of it there was: `descriptors 8000`. The last attempt is the end of the
//! process.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::Duration;

use api::vmm::LaunchSpec;
use enclave_vmm::privileges;

/// Bytes that are asked for at a time. They are not touched: what counts is what could be.
const PIECE: usize = 16 << 20;
const MIB: usize = 1 << 20;

/// Bytes on standard error, in lines of so many.
const LOGGED: usize = 16 << 20;
const LINE: usize = 1 << 10;

/// More than it will get of anything.
const MOST: usize = 1 << 20;

/// Takes all that can be had of everything. `outcome` is the one file that it may write to.
pub(crate) fn take_everything(
    spec: &LaunchSpec,
    outcome: OwnedFd,
    found: impl Fn(&str) -> io::Result<()>,
) -> io::Result<()> {
    privileges::limit_to_needs(spec)?;
    let descriptors: Vec<_> = (0..MOST)
        .map_while(|_| outcome.as_fd().try_clone_to_owned().ok())
        .collect();
    found(&format!("descriptors {}", descriptors.len()))?;
    drop(descriptors);
    let pieces: Vec<_> = (0..MOST).map_while(|_| piece()).collect();
    found(&format!("MiB {}", pieces.len() * (PIECE / MIB)))?;
    drop(pieces);
    let threads = (0..MOST).take_while(|_| starts_a_thread()).count();
    found(&format!("threads {threads}"))?;
    log();
    found("file")?;
    let mut file = File::from(outcome);
    loop {
        file.write_all(&[0; LINE])?;
    }
}

fn piece() -> Option<Vec<u8>> {
    let mut piece = Vec::new();
    piece.try_reserve_exact(PIECE).ok().map(|()| piece)
}

fn starts_a_thread() -> bool {
    let thread = thread::Builder::new().stack_size(64 << 10);
    thread.spawn(|| thread::sleep(Duration::MAX)).is_ok()
}

/// What the daemon does not take at once is lost.
fn log() {
    let mut line = [b'x'; LINE];
    if let Some(end) = line.last_mut() {
        *end = b'\n';
    }
    for _ in 0..LOGGED / LINE {
        let _ = io::stderr().write(&line);
    }
}
