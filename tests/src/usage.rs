//! What the VMM of an enclave takes of its parent, beside guest memory.

use std::fs;

/// At one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Anonymous memory in KiB: heap and stacks. Guest memory is of hugepages, which are counted apart.
    pub anonymous_kib: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Of the process with this id.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(process: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).expect("a number")
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("its descriptors");
        Self {
            anonymous_kib: number("RssAnon:"),
            descriptors: descriptors.count(),
            threads: number("Threads:"),
        }
    }
}

/// Raises this process's limit of open descriptors as far as it may.
///
/// # Panics
/// If that is refused.
pub fn allow_many_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).expect("raise the limit of descriptors");
}
