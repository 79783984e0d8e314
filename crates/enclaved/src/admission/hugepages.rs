//! The kernel's hugepages as guest memory: hugetlb memfds of whole pages, reserved when the enclave is admitted.
//!
//! # How memory is taken and returned
//!
//! A hugetlb file costs nothing until it is mapped shared; then the kernel reserves its pages, or refuses if too few
//! are free. The reservation belongs to the file, not to the mapping. So the daemon maps the file once, unmaps it and
//! passes the descriptor to the VMM: who gets the last pages is decided here, by the kernel, and a VMM never finds too
//! few. When the last descriptor and mapping are gone, the kernel frees the pages; that is when the VMM has ended and the
//! daemon has cleared them (see `guest_memory`). There is no account here that could disagree.
//!
//! # Nodes
//!
//! The kernel does not reserve pages of a certain NUMA node. On a machine with several, the VMM therefore takes the pages
//! of its node at once, before it loads the image ([`MemoryFile::node`]); that it finds them is seen to here, by counting
//! as taken on every node what is reserved on any. With one node no page is touched before the guest touches it.
//!
//! # Page sizes
//!
//! 1 GiB pages for the whole gibibytes, as far as such pages are free; 2 MiB pages for the rest. Nothing is wasted: more than
//! was asked for is only what fills the last page of 2 MiB.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use api::vmm::MemoryFile;
use api::{ErrorCode, Failure, PoolHugepages};
use memmap2::MmapOptions;
use rustix::fs::{MemfdFlags, SealFlags};

use super::memory::{GuestMemory, MIB, MemorySource};

/// Where the kernel describes CPUs, memory and nodes (`Documentation/admin-guide/mm/hugetlbpage.rst`).
pub const SYSFS: &str = "/sys";

/// A size of hugepage that guest memory can consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageSize {
    Gigabyte,
    TwoMegabytes,
}

impl PageSize {
    /// All of them, the largest first.
    pub(crate) const ALL: [Self; 2] = [Self::Gigabyte, Self::TwoMegabytes];

    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::Gigabyte => 1 << 30,
            Self::TwoMegabytes => 2 << 20,
        }
    }

    fn memfd_flag(self) -> MemfdFlags {
        match self {
            Self::Gigabyte => MemfdFlags::HUGE_1GB,
            Self::TwoMegabytes => MemfdFlags::HUGE_2MB,
        }
    }

    /// The directory that sysfs has for this size.
    pub(crate) fn directory(self) -> String {
        format!("hugepages-{}kB", self.bytes() / 1024)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gigabyte => "1 GiB",
            Self::TwoMegabytes => "2 MiB",
        }
    }
}

/// The kernel's hugepages.
#[derive(Debug)]
pub struct Hugepages {
    sysfs: PathBuf,
}

/// How many pages of each size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pages {
    gigabyte: u64,
    two_megabytes: u64,
}

impl Pages {
    /// The pages for `mib` MiB where `free` are free, if these are enough.
    fn among(mib: u64, free: Self) -> Option<Self> {
        let gigabyte = (mib >> 10).min(free.gigabyte);
        let rest = mib - (gigabyte << 10);
        let two_megabytes = rest.div_ceil(PageSize::TwoMegabytes.bytes() / MIB);
        (two_megabytes <= free.two_megabytes).then_some(Self {
            gigabyte,
            two_megabytes,
        })
    }
}

impl Hugepages {
    /// The hugepages described at `sysfs`, usually [`SYSFS`].
    pub fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
        }
    }

    /// A number the kernel publishes about pages of this size, of one node or of all; zero if it has none.
    fn count(&self, size: PageSize, node: Option<u32>, what: &str) -> u64 {
        let place = match node {
            Some(node) => format!("devices/system/node/node{node}/hugepages"),
            None => "kernel/mm/hugepages".to_owned(),
        };
        let file = self.sysfs.join(place).join(size.directory()).join(what);
        fs::read_to_string(file)
            .unwrap_or_default()
            .trim()
            .parse()
            .unwrap_or(0)
    }

    /// Pages of this size that are neither in use nor promised. What is promised is counted on each node.
    fn free(&self, size: PageSize, node: Option<u32>) -> u64 {
        self.count(size, node, "free_hugepages")
            .saturating_sub(self.count(size, None, "resv_hugepages"))
    }

    /// The NUMA nodes, ascending; node 0 on a machine that lists none.
    fn nodes(&self) -> BTreeSet<u32> {
        let entries = fs::read_dir(self.sysfs.join("devices/system/node"));
        let mut nodes: BTreeSet<u32> = entries
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
            .collect();
        if nodes.is_empty() {
            nodes.insert(0);
        }
        nodes
    }

    fn free_pages(&self, node: Option<u32>) -> Pages {
        Pages {
            gigabyte: self.free(PageSize::Gigabyte, node),
            two_megabytes: self.free(PageSize::TwoMegabytes, node),
        }
    }

    fn shortage(&self, mib: u64, node: Option<u32>) -> Failure {
        let size = PageSize::TwoMegabytes;
        let needed = mib.div_ceil(size.bytes() / MIB);
        let free = self.free_pages(node);
        let enough = self.count(size, node, "nr_hugepages") + needed.saturating_sub(free.two_megabytes);
        let place = match node {
            Some(node) => format!("devices/system/node/node{node}/hugepages"),
            None => "kernel/mm/hugepages".to_owned(),
        };
        let file = self.sysfs.join(place).join(size.directory()).join("nr_hugepages");
        let on_node = node.map_or_else(String::new, |node| {
            format!(" on NUMA node {node}, where its CPUs are")
        });
        Failure::new(
            ErrorCode::InsufficientMemoryAvailable,
            format!(
                "{mib} MiB need {needed} hugepages of 2 MiB, but {} of 2 MiB and {} of 1 GiB are free{on_node}. \
                 Reserve more (echo {enough} > {}) or terminate an enclave.",
                free.two_megabytes,
                free.gigabyte,
                file.display()
            ),
        )
    }

    /// Reserves exactly these pages.
    fn reserve_pages(pages: Pages, node: Option<u32>) -> Result<Vec<GuestMemory>, ReserveError> {
        let parts = [
            (PageSize::Gigabyte, pages.gigabyte),
            (PageSize::TwoMegabytes, pages.two_megabytes),
        ];
        let wanted = parts.into_iter().filter(|(_, pages)| *pages > 0);
        wanted.map(|(size, pages)| reserve(size, pages, node)).collect()
    }
}

impl MemorySource for Hugepages {
    fn allocate(&self, mib: u64, node: Option<u32>) -> Result<Vec<GuestMemory>, Failure> {
        // What sysfs says may be old by now; what the kernel says when the pages are reserved counts.
        let mut free = self.free_pages(node);
        loop {
            let pages = Pages::among(mib, free).ok_or_else(|| self.shortage(mib, node))?;
            match Self::reserve_pages(pages, node) {
                Ok(memory) => return Ok(memory),
                // A 1 GiB page that is gone meanwhile, or that this kernel does not give: there may be enough small ones.
                Err(_) if pages.gigabyte > 0 => free.gigabyte = 0,
                Err(ReserveError {
                    source: rustix::io::Errno::NOMEM | rustix::io::Errno::INVAL | rustix::io::Errno::FBIG,
                    step: Step::Resize | Step::Reserve,
                }) => return Err(self.shortage(mib, node)),
                Err(error) => {
                    let context = format!("Hugepages cannot be used: {}", error.step.name());
                    return Err(Failure::caused_by(
                        ErrorCode::InsufficientMemoryAvailable,
                        &context,
                        &error.source,
                    ));
                }
            }
        }
    }

    fn pools(&self) -> Vec<PoolHugepages> {
        let nodes = self.nodes();
        // A machine without nodes, and one with one, has no account for each.
        let several = nodes.len() > 1;
        let mut pools = Vec::new();
        for node in nodes {
            let counted = several.then_some(node);
            for size in PageSize::ALL {
                pools.push(PoolHugepages {
                    node,
                    page_size_mib: size.bytes() / MIB,
                    total: self.count(size, counted, "nr_hugepages"),
                    free: self.free(size, counted),
                });
            }
        }
        pools
    }

    fn fits(&self, mib: u64, node: u32) -> bool {
        Pages::among(mib, self.free_pages(Some(node))).is_some()
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Resize,
    Seal,
    Reserve,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "memfd_create",
            Self::Resize => "ftruncate",
            Self::Seal => "F_ADD_SEALS",
            Self::Reserve => "mmap",
        }
    }
}

struct ReserveError {
    step: Step,
    source: rustix::io::Errno,
}

/// A memory file of this many pages, which no one else can get.
fn reserve(size: PageSize, pages: u64, node: Option<u32>) -> Result<GuestMemory, ReserveError> {
    let failed = |step| move |source| ReserveError { step, source };
    let too_large = || failed(Step::Reserve)(rustix::io::Errno::NOMEM);
    let bytes = pages.checked_mul(size.bytes()).ok_or_else(too_large)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | size.memfd_flag();
    let file = rustix::fs::memfd_create("enclave-memory", flags).map_err(failed(Step::Create))?;
    rustix::fs::ftruncate(&file, bytes).map_err(failed(Step::Resize))?;
    // Nobody who is given the file can take pages from it, or make it too long to be cleared.
    let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed(Step::Seal))?;
    let length = usize::try_from(bytes).map_err(|_| too_large())?;
    // Mapping makes the reservation; unmapping, right here, leaves it with the file. A raw map is never read.
    MmapOptions::new()
        .len(length)
        .map_raw(&file)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::NOMEM))
        .map_err(failed(Step::Reserve))?;
    Ok(GuestMemory {
        file,
        layout: MemoryFile {
            size: bytes,
            page_size: size.bytes(),
            node,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages(root: &Path, place: &str, kib: u32, total: u64, free: u64, reserved: u64) {
        let directory = root.join(place).join(format!("hugepages-{kib}kB"));
        fs::create_dir_all(&directory).unwrap();
        for (file, count) in [
            ("nr_hugepages", total),
            ("free_hugepages", free),
            ("resv_hugepages", reserved),
        ] {
            fs::write(directory.join(file), format!("{count}\n")).unwrap();
        }
    }

    const ALL: &str = "kernel/mm/hugepages";
    const NODE_1: &str = "devices/system/node/node1/hugepages";

    #[test]
    fn too_few_hugepages_are_told_with_counts_and_remedy() {
        let sysfs = tempfile::tempdir().unwrap();
        pages(sysfs.path(), ALL, 2048, 100, 30, 10);
        pages(sysfs.path(), ALL, 1_048_576, 2, 1, 0);
        let hugepages = Hugepages::new(sysfs.path());

        for mib in [1 << 30, u64::MAX / MIB, u64::MAX] {
            let failure = hugepages.allocate(mib, None).unwrap_err();

            assert_eq!(failure.code, ErrorCode::InsufficientMemoryAvailable);
            let counts = "but 20 of 2 MiB and 1 of 1 GiB are free. Reserve";
            assert!(failure.message.contains(counts), "{}", failure.message);
        }
        let failure = hugepages.allocate(1 << 30, None).unwrap_err();
        let remedy = format!("echo {} > ", 100 + (1 << 29) - 20);
        assert!(failure.message.contains(&remedy), "{}", failure.message);
    }

    #[test]
    fn a_node_has_what_is_free_there_less_what_is_promised_anywhere() {
        let sysfs = tempfile::tempdir().unwrap();
        pages(sysfs.path(), ALL, 2048, 200, 150, 20);
        pages(sysfs.path(), NODE_1, 2048, 100, 90, 0);
        let hugepages = Hugepages::new(sysfs.path());

        fs::create_dir_all(sysfs.path().join("devices/system/node/node0")).unwrap();
        let pools: Vec<_> = hugepages
            .pools()
            .into_iter()
            .map(|pool| (pool.node, pool.page_size_mib, pool.total, pool.free))
            .collect();
        assert_eq!(
            pools,
            [(0, 1024, 0, 0), (0, 2, 0, 0), (1, 1024, 0, 0), (1, 2, 100, 70)]
        );
        assert!(hugepages.fits(140, 1));
        assert!(!hugepages.fits(142, 1));
        assert!(!hugepages.fits(2, 7), "there is no such node");
        let failure = hugepages.allocate(142, Some(1)).unwrap_err();
        let words = "but 70 of 2 MiB and 0 of 1 GiB are free on NUMA node 1, where its CPUs are.";
        assert!(failure.message.contains(words), "{}", failure.message);
        assert!(failure.message.contains("node1/hugepages"), "{}", failure.message);
    }

    #[test]
    fn a_kernel_without_hugepages_is_reported_as_having_none() {
        let sysfs = tempfile::tempdir().unwrap();
        let failure = Hugepages::new(sysfs.path()).allocate(63, None).unwrap_err();
        assert!(
            failure
                .message
                .starts_with("63 MiB need 32 hugepages of 2 MiB, but 0 of"),
            "{}",
            failure.message
        );
    }

    proptest! {
        /// Whatever is free: enough, less than one small page too much, whole gibibytes in large pages, never more than is free.
        #[test]
        fn pages_hold_what_was_asked_for_without_waste(
            mib in 1_u64..20_000,
            gigabyte in 0_u64..12,
            two_megabytes in 0_u64..12_000,
        ) {
            let free = Pages { gigabyte, two_megabytes };
            if let Some(pages) = Pages::among(mib, free) {
                let sum = pages.gigabyte * 1024 + pages.two_megabytes * 2;
                prop_assert!(sum >= mib && sum < mib + 2);
                prop_assert!(pages.gigabyte <= gigabyte && pages.two_megabytes <= two_megabytes);
                prop_assert!(pages.gigabyte == gigabyte || pages.two_megabytes * 2 < 1024 + 2);
            } else {
                let in_large_pages = (mib >> 10).min(gigabyte) << 10;
                prop_assert!(two_megabytes * 2 < mib - in_large_pages);
            }
        }
    }
}
