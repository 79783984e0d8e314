//! Guest memory: one hugetlb memfd of whole pages, reserved when the enclave is admitted.
//!
//! # How memory is taken and returned
//!
//! A hugetlb file costs nothing until it is mapped shared; then the kernel reserves its pages, or refuses if too few
//! are free. The reservation belongs to the file, not to the mapping. So the daemon maps the file once, unmaps it and
//! passes the descriptor to the VMM: who gets the last pages is decided here, by the kernel, and a VMM never finds too
//! few. No page is touched; the guest's first access takes it. When the last descriptor and mapping are gone, which
//! is when the VMM has ended, the kernel frees the pages. There is no account here that could disagree.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use api::vmm::MemoryFile;
use api::{ErrorCode, Failure};
use memmap2::MmapOptions;
use rustix::fs::MemfdFlags;

const MIB: u64 = 1 << 20;

/// Where the kernel describes its pools of hugepages (`Documentation/admin-guide/mm/hugetlbpage.rst`).
pub const SYSFS: &str = "/sys/kernel/mm/hugepages";

/// The least memory of an enclave, in MiB: AWS's driver refuses less.
pub const LEAST_MIB: u64 = 64;

/// An image is unpacked and copied in guest memory while it boots; AWS asks for this many times its size.
const IMAGE_FACTOR: u64 = 4;

/// Memory of one enclave that no one has mapped yet.
#[derive(Debug)]
pub struct GuestMemory {
    /// The memory file.
    pub file: OwnedFd,
    /// Its size and page size.
    pub layout: MemoryFile,
}

/// Where guest memory comes from. Tests have one that needs no hugepages.
pub trait MemorySource: Send + Sync {
    /// Memory files of together at least `mib` MiB, reserved, in guest-physical order.
    ///
    /// # Errors
    /// E27 if not enough pages are free: how many of which size are, and how to reserve more.
    fn allocate(&self, mib: u64) -> Result<Vec<GuestMemory>, Failure>;
}

/// Refuses a request that is too small for the image.
///
/// # Errors
/// E26: no memory, or less than four times the image; the text names the least that would do.
pub fn check_against_image(requested_mib: u64, eif_bytes: u64) -> Result<(), Failure> {
    let minimum_mib = eif_bytes.saturating_mul(IMAGE_FACTOR).div_ceil(MIB);
    if requested_mib >= minimum_mib && requested_mib > 0 {
        return Ok(());
    }
    let message = format!(
        "{requested_mib} MiB were asked for. At least {} MiB are needed: {IMAGE_FACTOR} times the image's {eif_bytes} \
         bytes, and never less than {LEAST_MIB} MiB.",
        minimum_mib.max(LEAST_MIB)
    );
    Err(Failure::new(ErrorCode::InsufficientMemoryRequested, message))
}

/// Refuses a request below the least memory of any enclave.
///
/// # Errors
/// E29, as AWS's driver.
pub fn check_least(requested_mib: u64) -> Result<(), Failure> {
    if requested_mib >= LEAST_MIB {
        return Ok(());
    }
    let message = format!("{requested_mib} MiB were asked for; an enclave needs at least {LEAST_MIB} MiB.");
    Err(Failure::new(ErrorCode::IoctlFailure, message))
}

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

impl Hugepages {
    /// The hugepages described at `sysfs`, usually [`SYSFS`].
    pub fn new(sysfs: &Path) -> Self {
        Self {
            sysfs: sysfs.to_owned(),
        }
    }

    /// A number the kernel publishes about pages of this size; zero if it has none.
    fn count(&self, size: PageSize, what: &str) -> u64 {
        let text = fs::read_to_string(self.sysfs.join(size.directory()).join(what)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Pages of this size that are neither in use nor promised.
    fn free(&self, size: PageSize) -> u64 {
        self.count(size, "free_hugepages")
            .saturating_sub(self.count(size, "resv_hugepages"))
    }

    fn shortage(&self, mib: u64) -> Failure {
        let size = PageSize::TwoMegabytes;
        let needed = mib.div_ceil(size.bytes() / MIB);
        let free = self.free(size);
        let enough = self.count(size, "nr_hugepages") + needed.saturating_sub(free);
        let file = self.sysfs.join(size.directory()).join("nr_hugepages");
        Failure::new(
            ErrorCode::InsufficientMemoryAvailable,
            format!(
                "{mib} MiB need {needed} hugepages of 2 MiB, but {free} of 2 MiB and {} of 1 GiB are free. \
                 Reserve more (echo {enough} > {}) or terminate an enclave.",
                self.free(PageSize::Gigabyte),
                file.display()
            ),
        )
    }
}

impl MemorySource for Hugepages {
    /// 1 GiB pages if the size is a multiple of 1 GiB and enough of them are free, else 2 MiB pages.
    fn allocate(&self, mib: u64) -> Result<Vec<GuestMemory>, Failure> {
        let bytes = mib.checked_mul(MIB).ok_or_else(|| self.shortage(mib))?;
        let gigabyte = PageSize::Gigabyte;
        if bytes.is_multiple_of(gigabyte.bytes())
            && self.free(gigabyte) >= bytes / gigabyte.bytes()
            && let Ok(memory) = reserve(gigabyte, bytes)
        {
            return Ok(vec![memory]);
        }
        let size = PageSize::TwoMegabytes;
        let whole_pages = bytes
            .checked_next_multiple_of(size.bytes())
            .ok_or_else(|| self.shortage(mib))?;
        match reserve(size, whole_pages) {
            Ok(memory) => Ok(vec![memory]),
            // A size beyond what a file can have is refused with these two.
            Err(ReserveError {
                source: rustix::io::Errno::NOMEM | rustix::io::Errno::INVAL | rustix::io::Errno::FBIG,
                step: Step::Resize | Step::Reserve,
            }) => Err(self.shortage(mib)),
            Err(error) => {
                let context = format!("{} hugepages cannot be used: {}", size.name(), error.step.name());
                Err(Failure::caused_by(
                    ErrorCode::InsufficientMemoryAvailable,
                    &context,
                    &error.source,
                ))
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Create,
    Resize,
    Reserve,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Create => "memfd_create",
            Self::Resize => "ftruncate",
            Self::Reserve => "mmap",
        }
    }
}

struct ReserveError {
    step: Step,
    source: rustix::io::Errno,
}

/// A memory file of `bytes`, a multiple of the page size, whose pages no one else can get.
fn reserve(size: PageSize, bytes: u64) -> Result<GuestMemory, ReserveError> {
    let failed = |step| move |source| ReserveError { step, source };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | size.memfd_flag();
    let file = rustix::fs::memfd_create("enclave-memory", flags).map_err(failed(Step::Create))?;
    rustix::fs::ftruncate(&file, bytes).map_err(failed(Step::Resize))?;
    let length = usize::try_from(bytes).map_err(|_| failed(Step::Reserve)(rustix::io::Errno::NOMEM))?;
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
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(root: &Path, kib: u32, total: u64, free: u64, reserved: u64) {
        let directory = root.join(format!("hugepages-{kib}kB"));
        fs::create_dir_all(&directory).unwrap();
        for (file, count) in [
            ("nr_hugepages", total),
            ("free_hugepages", free),
            ("resv_hugepages", reserved),
        ] {
            fs::write(directory.join(file), format!("{count}\n")).unwrap();
        }
    }

    #[test]
    fn four_times_the_image_is_the_least_and_the_text_names_it() {
        let eif = 20 * MIB + 1;

        assert!(check_against_image(81, eif).is_ok());
        let failure = check_against_image(80, eif).unwrap_err();
        assert_eq!(failure.code, ErrorCode::InsufficientMemoryRequested);
        assert!(failure.message.contains("At least 81 MiB"), "{}", failure.message);
        let nothing = check_against_image(0, 0).unwrap_err();
        assert_eq!(nothing.code, ErrorCode::InsufficientMemoryRequested);
        assert!(nothing.message.contains("At least 64 MiB"), "{}", nothing.message);
        assert!(check_against_image(u64::MAX, u64::MAX).is_ok());
    }

    #[test]
    fn less_than_64_mib_is_the_drivers_refusal() {
        assert!(check_least(64).is_ok());
        assert_eq!(check_least(63).unwrap_err().code, ErrorCode::IoctlFailure);
    }

    /// Asks the real kernel for more than any machine has.
    #[test]
    fn too_few_hugepages_are_told_with_counts_and_remedy() {
        let sysfs = tempfile::tempdir().unwrap();
        pages(sysfs.path(), 2048, 100, 30, 10);
        pages(sysfs.path(), 1_048_576, 2, 1, 0);
        let hugepages = Hugepages::new(sysfs.path());

        for mib in [1 << 30, u64::MAX / MIB, u64::MAX] {
            let failure = hugepages.allocate(mib).unwrap_err();

            assert_eq!(failure.code, ErrorCode::InsufficientMemoryAvailable);
            let counts = "but 20 of 2 MiB and 1 of 1 GiB are free";
            assert!(failure.message.contains(counts), "{}", failure.message);
        }
        let failure = hugepages.allocate(1 << 30).unwrap_err();
        let remedy = format!("echo {} > ", 100 + (1 << 29) - 20);
        assert!(failure.message.contains(&remedy), "{}", failure.message);
    }

    #[test]
    fn a_kernel_without_hugepages_is_reported_as_having_none() {
        let sysfs = tempfile::tempdir().unwrap();
        let failure = Hugepages::new(sysfs.path()).shortage(63);
        assert!(
            failure
                .message
                .starts_with("63 MiB need 32 hugepages of 2 MiB, but 0 of"),
            "{}",
            failure.message
        );
    }
}
