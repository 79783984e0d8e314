//! The three arrays of a split virtqueue (virtio 1.2, 2.7.6 and 2.7.8), field by field. All fields are little-endian.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::GuestAddress;

use super::ring_memory::{OutsideOfRing, RingMemory};
use super::table::DESCRIPTOR_SIZE;
use crate::GuestMemory;

/// Both rings begin with flags and an index of two bytes each, and end with an event index of two bytes.
const INDEX: usize = 2;
const ENTRIES: usize = 4;
const AVAILABLE_ENTRY: usize = 2;
const USED_ELEMENT: usize = 8;
const EVENT: usize = 2;

/// `VRING_USED_F_NO_NOTIFY`, as wide as the field.
const NO_NOTIFY: u16 = 1;

/// Where a driver says that its queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Descriptors: a power of two.
    pub(crate) size: u16,
    /// Aligned to 16 bytes.
    pub(crate) descriptors: u64,
    /// Aligned to 2 bytes.
    pub(crate) available: u64,
    /// Aligned to 4 bytes.
    pub(crate) used: u64,
}

/// The arrays, found in guest memory.
#[derive(Debug)]
pub(crate) struct Rings {
    size: u16,
    descriptors: RingMemory,
    available: RingMemory,
    used: RingMemory,
}

impl Rings {
    /// The arrays, if they are aligned and each is in one region of guest memory.
    pub(crate) fn new(memory: &Arc<GuestMemory>, layout: Layout) -> Option<Self> {
        let size = usize::from(layout.size);
        let aligned = layout.descriptors.is_multiple_of(16)
            && layout.available.is_multiple_of(2)
            && layout.used.is_multiple_of(4);
        if !aligned || !layout.size.is_power_of_two() {
            return None;
        }
        let array = |address, length| RingMemory::new(Arc::clone(memory), GuestAddress(address), length);
        Some(Self {
            size: layout.size,
            descriptors: array(layout.descriptors, DESCRIPTOR_SIZE * size)?,
            available: array(layout.available, ENTRIES + AVAILABLE_ENTRY * size + EVENT)?,
            used: array(layout.used, ENTRIES + USED_ELEMENT * size + EVENT)?,
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn descriptors(&self) -> &RingMemory {
        &self.descriptors
    }

    /// The size is a power of two.
    fn place(&self, number: u16) -> usize {
        usize::from(number & (self.size - 1))
    }

    pub(super) fn available_flags(&self) -> Result<u16, OutsideOfRing> {
        load(&self.available, 0, Ordering::Relaxed)
    }

    pub(super) fn available_index(&self, order: Ordering) -> Result<u16, OutsideOfRing> {
        load(&self.available, INDEX, order)
    }

    /// The head of the chain with this number, modulo the size.
    pub(super) fn available_entry(&self, number: u16) -> Result<u16, OutsideOfRing> {
        let offset = ENTRIES + AVAILABLE_ENTRY * self.place(number);
        load(&self.available, offset, Ordering::Relaxed)
    }

    /// The used index at which the driver wants an interrupt.
    pub(super) fn used_event(&self) -> Result<u16, OutsideOfRing> {
        let offset = ENTRIES + AVAILABLE_ENTRY * usize::from(self.size);
        load(&self.available, offset, Ordering::Relaxed)
    }

    /// Whether the driver is to ring, where there are no event indices.
    pub(super) fn set_doorbell_wanted(&self, wanted: bool) -> Result<(), OutsideOfRing> {
        let flags = if wanted { 0 } else { NO_NOTIFY };
        self.used.store(0, flags.to_le(), Ordering::Relaxed)
    }

    pub(super) fn set_used_index(&self, index: u16, order: Ordering) -> Result<(), OutsideOfRing> {
        self.used.store(INDEX, index.to_le(), order)
    }

    /// Puts a chain into the place that has this number, modulo the size.
    pub(super) fn set_used_element(&self, number: u16, head: u16, written: u32) -> Result<(), OutsideOfRing> {
        let offset = ENTRIES + USED_ELEMENT * self.place(number);
        self.used
            .store(offset, u32::from(head).to_le(), Ordering::Relaxed)?;
        self.used.store(offset + 4, written.to_le(), Ordering::Relaxed)
    }

    /// The available index at which the device wants the doorbell rung.
    pub(super) fn set_available_event(&self, index: u16) -> Result<(), OutsideOfRing> {
        let offset = ENTRIES + USED_ELEMENT * usize::from(self.size);
        self.used.store(offset, index.to_le(), Ordering::Relaxed)
    }
}

fn load(memory: &RingMemory, offset: usize, order: Ordering) -> Result<u16, OutsideOfRing> {
    memory.load(offset, order).map(u16::from_le)
}
