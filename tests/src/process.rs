//! What a process has of the machine (`proc_pid_status(5)`).

use std::fs;

/// What a VMM holds, without the enclave's own memory, which is in hugepages and counted nowhere here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Memory that is no file's, in KiB.
    pub private_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Holdings {
    /// Of this process; `None` once it has ended.
    pub fn of(process_id: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process_id}/status")).ok()?;
        let number = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_ascii_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{process_id}/fd")).ok()?.count();
        Some(Self {
            private_kib: number("RssAnon:")?,
            descriptors: descriptors as u64,
            threads: number("Threads:")?,
        })
    }

    /// The most of each.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self {
            private_kib: self.private_kib.max(other.private_kib),
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
        }
    }
}
