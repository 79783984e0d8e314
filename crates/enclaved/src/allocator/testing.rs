//! A machine for tests: its sysfs in a temporary directory, and a kernel that gives as many pages as it is told to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Allocator;
use super::pool::Pool;
use super::sysfs::{Kernel, Sysfs};
use crate::admission::memory::PageSize;

pub(crate) use PageSize::{Gigabyte, TwoMegabytes};

/// A machine's files and a run directory.
pub(crate) struct FakeMachine {
    root: TempDir,
    nodes: usize,
}

impl FakeMachine {
    /// The cores of each node, with no hugepages and much free memory.
    pub(crate) fn new(nodes: &[&[&[u32]]]) -> Self {
        let machine = Self {
            root: tempfile::tempdir().unwrap(),
            nodes: nodes.len(),
        };
        let cpus = |cores: &[&[u32]]| cores.concat();
        let all = nodes.iter().flat_map(|cores| cpus(cores)).collect::<Vec<_>>();
        machine.write("devices/cpu/present", &listed(&all));
        machine.write("devices/cpu/online", &listed(&all));
        for core in nodes.iter().copied().flatten() {
            for cpu in *core {
                let file = format!("devices/cpu/cpu{cpu}/topology/thread_siblings_list");
                machine.write(&file, &listed(core));
            }
        }
        for (node, cores) in nodes.iter().enumerate() {
            machine.write(&format!("devices/node/node{node}/cpulist"), &listed(&cpus(cores)));
            machine.has_free_memory(node, 1 << 20);
        }
        for size in PageSize::ALL {
            machine.promised(size, 0);
            for node in 0..nodes.len() {
                machine.has_pages(node, size, 0, 0);
            }
        }
        machine
    }

    /// Two nodes with two cores of two threads each.
    pub(crate) fn with_two_nodes() -> Self {
        Self::new(&[&[&[0, 1], &[2, 3]], &[&[4, 5], &[6, 7]]])
    }

    /// Takes the directories of nodes away, as on a kernel without NUMA; CPUs stay.
    pub(crate) fn without_nodes(self) -> Self {
        fs::remove_dir_all(self.root.path().join("devices/node")).unwrap();
        for size in PageSize::ALL {
            for (count, value) in COUNTS.into_iter().zip([0; 3]) {
                let file = format!("hugepages/{}/{count}", size.directory());
                self.write(&file, &value.to_string());
            }
        }
        self
    }

    pub(crate) fn take_offline(&self, cpu: u32) {
        let online = self.root.path().join("devices/cpu/online");
        let cpus = fs::read_to_string(&online).unwrap();
        let left: Vec<&str> = cpus.split(',').filter(|text| *text != cpu.to_string()).collect();
        fs::write(online, left.join(",")).unwrap();
        fs::remove_dir_all(self.root.path().join(format!("devices/cpu/cpu{cpu}"))).unwrap();
    }

    /// `total` pages of which `used` are in use.
    pub(crate) fn has_pages(&self, node: usize, size: PageSize, total: u64, used: u64) {
        let directory = format!("devices/node/node{node}/hugepages/{}", size.directory());
        for (count, value) in COUNTS.into_iter().zip([total, total - used, 0]) {
            self.write(&format!("{directory}/{count}"), &value.to_string());
        }
    }

    /// Pages that programs will use.
    pub(crate) fn promised(&self, size: PageSize, pages: u64) {
        let file = format!("hugepages/{}/resv_hugepages", size.directory());
        self.write(&file, &pages.to_string());
    }

    /// Takes a size of page away on all nodes.
    pub(crate) fn lacks(&self, size: PageSize) {
        for node in 0..self.nodes {
            fs::remove_dir_all(self.pages_directory(node, size)).unwrap();
        }
    }

    /// What `meminfo` of a node says.
    pub(crate) fn has_free_memory(&self, node: usize, mib: u64) {
        let meminfo = format!(
            "Node {node} MemTotal: 99999999999 kB\nNode {node} MemFree:     {} kB\n",
            mib << 10
        );
        self.write(&format!("devices/node/node{node}/meminfo"), &meminfo);
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs {
            devices: self.root.path().join("devices"),
            hugepages: self.root.path().join("hugepages"),
            meminfo: self.root.path().join("meminfo"),
        }
    }

    pub(crate) fn run_directory(&self) -> PathBuf {
        self.root.path().join("run")
    }

    pub(crate) fn allocator(&self, kernel: FakeKernel) -> Allocator<FakeKernel> {
        Allocator {
            sysfs: self.sysfs(),
            kernel,
            run_directory: self.run_directory(),
        }
    }

    /// The file that sets a count.
    pub(crate) fn count_file(&self, node: usize, size: PageSize) -> PathBuf {
        self.pages_directory(node, size).join(COUNTS[0])
    }

    /// Pages of 1 GiB and of 2 MiB of each node.
    pub(crate) fn counts(&self) -> Vec<[u64; 2]> {
        let count = |node, size| number(&self.count_file(node, size));
        (0..self.nodes)
            .map(|node| PageSize::ALL.map(|size| count(node, size)))
            .collect()
    }

    pub(crate) fn pool(&self) -> Option<Pool> {
        Pool::read(&self.run_directory()).unwrap()
    }

    fn pages_directory(&self, node: usize, size: PageSize) -> PathBuf {
        let path = format!("devices/node/node{node}/hugepages/{}", size.directory());
        self.root.path().join(path)
    }

    fn write(&self, file: &str, content: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

const COUNTS: [&str; 3] = ["nr_hugepages", "free_hugepages", "surplus_hugepages"];

fn listed(cpus: &[u32]) -> String {
    let cpus: BTreeSet<u32> = cpus.iter().copied().collect();
    let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
    cpus.join(",")
}

fn number(path: &Path) -> u64 {
    // 0 of a size that is not there.
    fs::read_to_string(path).map_or(0, |text| text.trim().parse().unwrap())
}

/// Gives what is asked for, unless told otherwise. Pages in use are never freed: they become surplus, as in Linux.
#[derive(Debug, Default)]
pub(crate) struct FakeKernel {
    /// The most that it gives, by file.
    pub(crate) most: BTreeMap<PathBuf, u64>,
    /// Files that cannot be written, and why.
    pub(crate) refuses: BTreeMap<PathBuf, io::ErrorKind>,
    /// All that it was asked for.
    pub(crate) asked: RefCell<Vec<(PathBuf, u64)>>,
}

impl FakeKernel {
    pub(crate) fn giving(most: impl IntoIterator<Item = (PathBuf, u64)>) -> Self {
        Self {
            most: most.into_iter().collect(),
            ..Self::default()
        }
    }

    pub(crate) fn refusing(path: PathBuf, why: io::ErrorKind) -> Self {
        Self {
            refuses: [(path, why)].into(),
            ..Self::default()
        }
    }
}

impl Kernel for FakeKernel {
    fn ask(&self, file: &Path, pages: u64) -> io::Result<()> {
        self.asked.borrow_mut().push((file.to_owned(), pages));
        if let Some(why) = self.refuses.get(file) {
            return Err((*why).into());
        }
        let [total, free, surplus] = COUNTS.map(|count| file.with_file_name(count));
        let before = number(&total);
        let used = before - number(&free);
        let most = self.most.get(file).copied().unwrap_or(u64::MAX);
        // What is there already stays there.
        let given = pages.min(most.max(before));
        let now = given.max(used);
        for (path, value) in [(total, now), (free, now - used), (surplus, now - given)] {
            fs::write(path, format!("{value}\n"))?;
        }
        Ok(())
    }
}
