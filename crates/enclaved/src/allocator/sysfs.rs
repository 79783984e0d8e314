//! The kernel's files about hugepages (`Documentation/admin-guide/mm/hugetlbpage.rst`).
//!
//! ```text
//! /sys/devices/system/node/nodeN/hugepages/hugepages-{1048576,2048}kB/   nr_, free_, surplus_hugepages of node N
//! /sys/kernel/mm/hugepages/hugepages-{1048576,2048}kB/                   the same of all nodes, and resv_hugepages
//! ```
//!
//! A kernel without NUMA has the second only, and what it has is node 0's. Writing `nr_hugepages` asks; the kernel gives
//! what it can and reports no error, so only reading it again tells what was given.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::admission::memory::PageSize;
use crate::admission::topology;

/// Where the kernel describes the machine.
#[derive(Debug, Clone)]
pub struct Sysfs {
    /// `/sys/devices/system`.
    pub devices: PathBuf,
    /// `/sys/kernel/mm/hugepages`.
    pub hugepages: PathBuf,
    /// `/proc/meminfo`.
    pub meminfo: PathBuf,
}

/// The hugepages of one size on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// All that there are, used or not.
    pub total: u64,
    /// Those among them that nobody uses.
    pub free: u64,
    /// Those that vanish when they are no longer used, because they are more than was asked for.
    pub surplus: u64,
    /// Pages promised to programs that have not touched them yet. The kernel says so for all nodes together only; each
    /// is taken to have them all.
    pub promised: u64,
}

/// Why the number of pages is not known.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// A file of hugepages could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of hugepages does not hold a number.
    #[error("{path} holds {content:?}, which is no number of pages")]
    NoCount {
        /// The file.
        path: PathBuf,
        /// What it holds.
        content: String,
    },
}

impl Counts {
    /// The pages that are not enclaves' to have: used or promised.
    pub fn held(&self) -> u64 {
        let used = self.total.saturating_sub(self.free);
        used.saturating_add(self.promised.min(self.free))
    }

    /// What `nr_hugepages` was set to.
    pub fn asked_for(&self) -> u64 {
        self.total.saturating_sub(self.surplus)
    }
}

impl Sysfs {
    /// Of the machine this process runs on.
    pub fn of_this_machine() -> Self {
        Self {
            devices: topology::SYSFS.into(),
            hugepages: "/sys/kernel/mm/hugepages".into(),
            meminfo: "/proc/meminfo".into(),
        }
    }

    /// The nodes whose hugepages can be set; node 0 alone on a machine without nodes.
    pub fn nodes(&self) -> BTreeSet<u32> {
        let entries = fs::read_dir(self.devices.join("node"));
        let numbers = entries.into_iter().flatten().flatten().filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            entry.path().join("hugepages").is_dir().then_some(number)
        });
        let mut nodes: BTreeSet<u32> = numbers.collect();
        if nodes.is_empty() {
            nodes.insert(0);
        }
        nodes
    }

    /// The pages of one size on one node; `None` if the kernel has no such size.
    ///
    /// # Errors
    /// [`CountError`].
    pub(crate) fn counts(&self, node: u32, size: PageSize) -> Result<Option<Counts>, CountError> {
        let directory = self.directory(node, size);
        if !directory.is_dir() {
            return Ok(None);
        }
        let whole_machine = self.hugepages.join(size.directory());
        Ok(Some(Counts {
            total: read_count(&directory.join("nr_hugepages"))?,
            free: read_count(&directory.join("free_hugepages"))?,
            surplus: read_count(&directory.join("surplus_hugepages"))?,
            promised: read_count(&whole_machine.join("resv_hugepages"))?,
        }))
    }

    /// The file that sets how many pages of one size a node has.
    pub(crate) fn count_file(&self, node: u32, size: PageSize) -> PathBuf {
        self.directory(node, size).join("nr_hugepages")
    }

    /// Bytes of a node that could become hugepages.
    pub(super) fn free_bytes(&self, node: u32) -> u64 {
        let directory = self.node(node);
        if directory.join("hugepages").is_dir() {
            free_bytes(&directory.join("meminfo"))
        } else {
            free_bytes(&self.meminfo)
        }
    }

    fn node(&self, node: u32) -> PathBuf {
        self.devices.join(format!("node/node{node}"))
    }

    fn directory(&self, node: u32, size: PageSize) -> PathBuf {
        let of_the_node = self.node(node).join("hugepages");
        if of_the_node.is_dir() {
            of_the_node.join(size.directory())
        } else {
            self.hugepages.join(size.directory())
        }
    }
}

fn read_count(path: &Path) -> Result<u64, CountError> {
    let text = fs::read_to_string(path).map_err(|source| CountError::Read {
        path: path.to_owned(),
        source,
    })?;
    text.trim().parse().map_err(|_| CountError::NoCount {
        path: path.to_owned(),
        content: text.trim().chars().take(80).collect(),
    })
}

/// What a node, or the machine, could give without taking memory from programs: free, caches of files, and what the
/// kernel can shrink. No limit if `meminfo` does not say.
fn free_bytes(meminfo: &Path) -> u64 {
    let text = fs::read_to_string(meminfo).unwrap_or_default();
    // `Node 0 MemFree:  1234 kB`, and the same without a node in /proc/meminfo.
    let kib = |name: &str| {
        text.lines().find_map(|line| {
            let (label, value) = line.split_once(':')?;
            let wanted = label.split_ascii_whitespace().last() == Some(name);
            let number = wanted.then(|| value.trim().strip_suffix("kB")).flatten()?;
            number.trim().parse::<u64>().ok()
        })
    };
    let Some(free) = kib("MemFree") else {
        return u64::MAX;
    };
    // Shared memory is counted among files, but there is nowhere to write it back to.
    let files = kib("FilePages").or_else(|| kib("Cached")).unwrap_or(0);
    let caches = files.saturating_sub(kib("Shmem").unwrap_or(0));
    let shrinkable = kib("SReclaimable").unwrap_or(0);
    free.saturating_add(caches)
        .saturating_add(shrinkable)
        .saturating_mul(1024)
}

/// Who changes how many hugepages there are. Tests have one that gives less than is asked for.
pub trait Kernel {
    /// Asks for `pages` pages in all through `file`, an `nr_hugepages`.
    ///
    /// # Errors
    /// What the kernel says; giving fewer is no error.
    fn ask(&self, file: &Path, pages: u64) -> io::Result<()>;
}

/// The kernel this process runs on.
#[derive(Debug, Clone, Copy)]
pub struct ThisKernel;

impl Kernel for ThisKernel {
    fn ask(&self, file: &Path, pages: u64) -> io::Result<()> {
        // One write: each is a request of its own.
        File::options()
            .write(true)
            .open(file)?
            .write_all(pages.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_files_can_be_had_and_shared_memory_cannot() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let node = "Node 0 MemTotal: 900 kB\nNode 0 MemFree: 100 kB\nNode 0 FilePages: 70 kB\nNode 0 Shmem: 20 kB\n\
                    Node 0 SReclaimable: 7 kB\nNode 0 HugePages_Total: 3\n";
        let machine = "MemTotal: 900 kB\nMemFree: 100 kB\nCached: 70 kB\nSwapCached: 5 kB\nShmem: 20 kB\n";
        for (text, kib) in [
            (node, 157),
            (machine, 150),
            ("MemFree: 100 kB\nCached: 1 kB\nShmem: 9 kB", 100),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(free_bytes(file.path()), kib * 1024);
        }
        for text in ["", "MemFree\n", "MemFree: x kB\n", "MemFree: 1\n"] {
            fs::write(&file, text).unwrap();
            assert_eq!(free_bytes(file.path()), u64::MAX, "{text:?}");
        }
    }
}
