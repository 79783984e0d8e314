//! Guest memory in which a ring lies: looked for once, then reached by its place in this process.
//!
//! A device reads and writes its rings several times for each packet. Finding the region of guest memory that an address is in
//! costs more than the access, so that is done when the driver has set the ring up. The memory stays mapped because it is owned
//! here; the guest may change it at any moment, so it is reached by volatile and atomic accesses only.

#![expect(
    unsafe_code,
    reason = "a slice of memory that is owned beside it takes a raw pointer"
)]

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{AtomicAccess, Bytes, GuestAddress, VolatileSlice};

use super::slice_in_one_region;
use crate::{GuestMemory, GuestSlice};

/// A piece of guest memory, and ownership of the whole so that it stays where it is.
#[derive(Debug)]
pub struct RingMemory {
    start: NonNull<u8>,
    length: usize,
    /// What `start` points into.
    _memory: Arc<GuestMemory>,
}

// SAFETY: the pointer is into a shared mapping, which belongs to no thread and which the owner beside it keeps. That owner may be
// sent, as the line after this says.
unsafe impl Send for RingMemory {}
const _: fn(Arc<GuestMemory>) -> Box<dyn Send> = |owner| Box::new(owner);

/// An access outside of the memory, or at an address that is not a multiple of the value's size. Rings whose place and size were
/// checked have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an access outside of the memory of a ring")]
pub struct OutsideOfRing;

impl RingMemory {
    /// The memory from `address` on, if all of it is in one region.
    pub fn new(memory: Arc<GuestMemory>, address: GuestAddress, length: usize) -> Option<Self> {
        let slice = slice_in_one_region(&memory, address, length)?;
        let start = NonNull::new(slice.ptr_guard_mut().as_ptr())?;
        Some(Self {
            start,
            length,
            _memory: memory,
        })
    }

    /// All of it.
    pub fn slice(&self) -> GuestSlice<'_> {
        // SAFETY: `new` has found that many bytes there, in a mapping that lives as long as `self` and with it the slice. As
        // everywhere in this process, guest memory is reached by `VolatileSlice` and never by a Rust reference.
        unsafe { VolatileSlice::new(self.start.as_ptr(), self.length) }
    }

    /// Reads the value at `offset`, all at once.
    ///
    /// # Errors
    /// [`OutsideOfRing`]
    pub fn load<T: AtomicAccess>(&self, offset: usize, order: Ordering) -> Result<T, OutsideOfRing> {
        self.slice().load(offset, order).map_err(|_| OutsideOfRing)
    }

    /// Writes the value at `offset`, all at once.
    ///
    /// # Errors
    /// [`OutsideOfRing`]
    pub fn store<T: AtomicAccess>(
        &self,
        offset: usize,
        value: T,
        order: Ordering,
    ) -> Result<(), OutsideOfRing> {
        self.slice()
            .store(value, offset, order)
            .map_err(|_| OutsideOfRing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Arc<GuestMemory> {
        let ranges = [(GuestAddress(0x1000), 0x1000), (GuestAddress(0x2000), 0x1000)];
        Arc::new(GuestMemory::from_ranges(&ranges).unwrap())
    }

    #[test]
    fn it_is_the_guests_memory_and_outlives_its_other_owners() {
        let memory = memory();
        let ring = RingMemory::new(Arc::clone(&memory), GuestAddress(0x1800), 0x800).unwrap();
        ring.store(0x10, 0x1234_u16, Ordering::Relaxed).unwrap();
        let seen: u16 = memory.load(GuestAddress(0x1810), Ordering::Relaxed).unwrap();
        assert_eq!(seen, 0x1234);
        drop(memory);
        assert_eq!(ring.load(0x10, Ordering::Relaxed), Ok(0x1234_u16));
    }

    #[test]
    fn it_ends_where_it_ends() {
        let ring = RingMemory::new(memory(), GuestAddress(0x1800), 0x100).unwrap();
        assert_eq!(ring.load::<u16>(0xfe, Ordering::Relaxed), Ok(0));
        assert_eq!(ring.load::<u32>(0xfe, Ordering::Relaxed), Err(OutsideOfRing));
        assert_eq!(ring.load::<u16>(0x11, Ordering::Relaxed), Err(OutsideOfRing));
        assert_eq!(
            ring.store(usize::MAX - 1, 0_u16, Ordering::Relaxed),
            Err(OutsideOfRing)
        );
    }

    #[test]
    fn memory_that_is_missing_or_in_two_regions_is_no_ring() {
        for (address, length) in [(0x800, 0x10), (0xfff, 2), (0x1fff, 2), (0x2fff, 2), (u64::MAX, 2)] {
            assert!(RingMemory::new(memory(), GuestAddress(address), length).is_none());
        }
    }
}
