//! Guest memory: how much an enclave needs, and where it comes from.
//!
//! [`MemorySource`] is the seam; [`Hugepages`](super::hugepages::Hugepages) is the real one.

use std::os::fd::OwnedFd;

use api::vmm::MemoryFile;
use api::{ErrorCode, Failure, PoolHugepages};

pub(crate) use super::hugepages::PageSize;

pub(super) const MIB: u64 = 1 << 20;

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
    /// Memory files of together at least `mib` MiB, reserved, in guest-physical order; on one NUMA node, if one is named.
    ///
    /// # Errors
    /// E27 if not enough pages are free: how many of which size are, and how to reserve more.
    fn allocate(&self, mib: u64, node: Option<u32>) -> Result<Vec<GuestMemory>, Failure>;

    /// What there is, by node and page size.
    fn pools(&self) -> Vec<PoolHugepages>;

    /// Whether `node` seems to have `mib` MiB to give.
    fn fits(&self, mib: u64, node: u32) -> bool;
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
