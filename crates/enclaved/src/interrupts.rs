//! Keeping interrupts away from the CPUs of enclaves (`Documentation/core-api/irq/irq-affinity.rst`).
//!
//! `/proc/irq/<number>/smp_affinity_list` says on which CPUs an interrupt's handler may run. Interrupts that the kernel
//! itself spreads over the CPUs (those of many network and storage queues) refuse to be moved; they stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::admission::topology::parse_cpu_list;

/// Where the kernel lists interrupts.
pub(crate) const PROC_IRQ: &str = "/proc/irq";

/// Moves every interrupt that may run on one of `cpus`, and on others as well, to those others. Returns those it has moved.
pub(crate) fn keep_off(interrupts: &Path, cpus: &BTreeSet<u32>) -> Vec<u32> {
    let mut moved: Vec<u32> = numbers(interrupts)
        .filter(|number| change(&affinity_file(interrupts, *number), |allowed| allowed - cpus))
        .collect();
    moved.sort_unstable();
    moved
}

/// Lets the interrupts that [`keep_off`] has moved run on `cpus` again.
pub(crate) fn allow_again(interrupts: &Path, moved: &[u32], cpus: &BTreeSet<u32>) {
    for number in moved {
        change(&affinity_file(interrupts, *number), |allowed| allowed | cpus);
    }
}

fn numbers(interrupts: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(interrupts).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn affinity_file(interrupts: &Path, number: u32) -> PathBuf {
    interrupts.join(number.to_string()).join("smp_affinity_list")
}

/// Whether the kernel has accepted another set of CPUs.
fn change(file: &Path, wanted: impl FnOnce(&BTreeSet<u32>) -> BTreeSet<u32>) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let Some(allowed) = parse_cpu_list(text.trim()) else {
        return false;
    };
    let wanted = wanted(&allowed);
    if wanted.is_empty() || wanted == allowed {
        return false;
    }
    let list: Vec<String> = wanted.iter().map(u32::to_string).collect();
    fs::write(file, list.join(",")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affinity(directory: &Path, number: &str) -> String {
        fs::read_to_string(directory.join(number).join("smp_affinity_list")).unwrap()
    }

    #[test]
    fn interrupts_leave_the_enclaves_cpus_and_come_back() {
        let directory = tempfile::tempdir().unwrap();
        for (number, cpus) in [("0", "0-7"), ("9", "0"), ("24", "2-3"), ("25", "1,3")] {
            fs::create_dir(directory.path().join(number)).unwrap();
            fs::write(directory.path().join(number).join("smp_affinity_list"), cpus).unwrap();
        }
        fs::write(directory.path().join("default_smp_affinity"), "ff").unwrap();
        let enclave = BTreeSet::from([2, 3]);

        let moved = keep_off(directory.path(), &enclave);

        assert_eq!(moved, [0, 25]);
        assert_eq!(affinity(directory.path(), "0"), "0,1,4,5,6,7");
        assert_eq!(affinity(directory.path(), "25"), "1");
        assert_eq!(
            affinity(directory.path(), "24"),
            "2-3",
            "it would have no CPU left"
        );
        assert_eq!(affinity(directory.path(), "9"), "0");

        allow_again(directory.path(), &moved, &enclave);

        assert_eq!(affinity(directory.path(), "0"), "0,1,2,3,4,5,6,7");
        assert_eq!(affinity(directory.path(), "25"), "1,2,3");
    }
}
