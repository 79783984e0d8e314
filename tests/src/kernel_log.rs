//! What the parent's kernel has said.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// What it says when something is wrong with itself.
const COMPLAINTS: [&str; 6] = [
    "BUG:",
    "Oops",
    "WARNING: CPU",
    "general protection fault",
    "refcount_t:",
    "list_add corruption",
];

/// The lines in which the kernel says that something is wrong with itself.
///
/// # Panics
/// If its log cannot be read.
pub fn complaints() -> Vec<String> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).expect("a flag"))
        .open("/dev/kmsg")
        .expect("open the kernel's log");
    let mut lines = Vec::new();
    let mut record = [0; 8192];
    // One record each; an error at the end, and for records that are overwritten meanwhile.
    while let Ok(length @ 1..) = log.read(&mut record) {
        let text = String::from_utf8_lossy(&record[..length]).into_owned();
        // A processor that an emulator on a busy host does not run for a while is no fault of the kernel's.
        let is_starved = text.contains("soft lockup");
        if !is_starved && COMPLAINTS.iter().any(|complaint| text.contains(complaint)) {
            lines.push(text);
        }
    }
    lines
}
