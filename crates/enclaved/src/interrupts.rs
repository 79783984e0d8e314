//! Keeping interrupts away from the CPUs of enclaves (`Documentation/core-api/irq/irq-affinity.rst`).
//!
//! `/proc/irq/<number>/smp_affinity_list` says on which CPUs an interrupt's handler may run. Interrupts that the kernel
//! itself spreads over the CPUs (those of many network and storage queues) refuse to be moved; they stay.
//! `/proc/irq/default_smp_affinity` says the same of interrupts that are yet to come.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::admission::topology::parse_cpu_list;

/// Where the kernel lists interrupts.
pub(crate) const PROC_IRQ: &str = "/proc/irq";

/// Where the kernel keeps on which CPUs new interrupts may run, as a mask in hexadecimal.
const DEFAULT: &str = "default_smp_affinity";

/// What [`keep_off`] has changed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    /// Interrupts that now run elsewhere.
    interrupts: Vec<u32>,
    /// Whether new ones will.
    new_ones: bool,
}

/// Moves every interrupt that may run on one of `cpus`, and on others as well, to those others, and has new ones start there.
pub(crate) fn keep_off(interrupts: &Path, cpus: &BTreeSet<u32>) -> Moved {
    let _alone = alone();
    let new_ones = change(&interrupts.join(DEFAULT), Form::Mask, |allowed| allowed - cpus);
    let mut moved: Vec<u32> = numbers(interrupts)
        .filter(|number| {
            change(&affinity_file(interrupts, *number), Form::List, |allowed| {
                allowed - cpus
            })
        })
        .collect();
    moved.sort_unstable();
    Moved {
        interrupts: moved,
        new_ones,
    }
}

/// Lets the interrupts that [`keep_off`] has moved run on `cpus` again.
pub(crate) fn allow_again(interrupts: &Path, moved: &Moved, cpus: &BTreeSet<u32>) {
    let _alone = alone();
    if moved.new_ones {
        change(&interrupts.join(DEFAULT), Form::Mask, |allowed| allowed | cpus);
    }
    for number in &moved.interrupts {
        change(&affinity_file(interrupts, *number), Form::List, |allowed| {
            allowed | cpus
        });
    }
}

/// What is read, changed and written back must not be changed by another enclave meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static CHANGING: Mutex<()> = Mutex::new(());
    CHANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn numbers(interrupts: &Path) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(interrupts).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn affinity_file(interrupts: &Path, number: u32) -> PathBuf {
    interrupts.join(number.to_string()).join("smp_affinity_list")
}

/// How a file tells a set of CPUs.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// `0-3,5`.
    List,
    /// Hexadecimal, 32 CPUs between commas, the highest first: `1,ffffffff`.
    Mask,
}

impl Form {
    fn parse(self, text: &str) -> Option<BTreeSet<u32>> {
        match self {
            Self::List => parse_cpu_list(text),
            Self::Mask => parse_mask(text),
        }
    }

    fn format(self, cpus: &BTreeSet<u32>) -> String {
        match self {
            Self::List => cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(","),
            Self::Mask => format_mask(cpus),
        }
    }
}

fn parse_mask(text: &str) -> Option<BTreeSet<u32>> {
    let words = text
        .split(',')
        .rev()
        .map(|word| u32::from_str_radix(word, 16).ok());
    let mut cpus = BTreeSet::new();
    for (base, word) in (0..).step_by(32).zip(words) {
        let word = word?;
        cpus.extend((0..32).filter(|bit| word >> bit & 1 == 1).map(|bit| base + bit));
    }
    Some(cpus)
}

fn format_mask(cpus: &BTreeSet<u32>) -> String {
    let highest = cpus.last().map_or(0, |cpu| cpu / 32);
    let word = |number| {
        let bits = cpus
            .iter()
            .filter(|cpu| *cpu / 32 == number)
            .map(|cpu| 1_u32 << (cpu % 32));
        format!("{:08x}", bits.fold(0, std::ops::BitOr::bitor))
    };
    (0..=highest).rev().map(word).collect::<Vec<_>>().join(",")
}

/// Whether the kernel has accepted another set of CPUs.
fn change(file: &Path, form: Form, wanted: impl FnOnce(&BTreeSet<u32>) -> BTreeSet<u32>) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let Some(allowed) = form.parse(text.trim()) else {
        return false;
    };
    let wanted = wanted(&allowed);
    if wanted.is_empty() || wanted == allowed {
        return false;
    }
    fs::write(file, form.format(&wanted)).is_ok()
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

        assert_eq!(
            moved,
            Moved {
                interrupts: vec![0, 25],
                new_ones: true
            }
        );
        let default = || fs::read_to_string(directory.path().join(DEFAULT)).unwrap();
        assert_eq!(default(), "000000f3");
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
        assert_eq!(default(), "000000ff");
    }

    #[test]
    fn masks_are_those_of_the_kernel() {
        let cpus = BTreeSet::from([0, 31, 32, 69]);
        assert_eq!(format_mask(&cpus), "00000020,00000001,80000001");
        assert_eq!(parse_mask("20,00000001,80000001"), Some(cpus));
        assert_eq!(parse_mask("ff"), Some((0..8).collect()));
        for no_mask in ["", "x", "1,,2", "100000000"] {
            assert_eq!(parse_mask(no_mask), None, "{no_mask}");
        }
    }
}
