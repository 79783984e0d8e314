//! What the driver has written about one queue, before anybody believes it.

use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use crate::GuestMemory;

/// The registers of one queue (virtio 1.2, 4.2.2: QueueNum, QueueReady, QueueDesc, QueueDriver, QueueDevice).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct QueueRegisters {
    max_size: u16,
    pub(super) size: u32,
    pub(super) ready: bool,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

impl QueueRegisters {
    /// Registers after reset, for a queue of at most `max_size` descriptors.
    pub(super) fn new(max_size: u16) -> Self {
        Self {
            max_size,
            size: u32::from(max_size),
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }

    pub(super) fn max_size(&self) -> u16 {
        self.max_size
    }

    pub(super) fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    /// The queue that the registers describe, if the driver has made it ready, its size is a power of two within the
    /// maximum, and its three rings are aligned and inside guest memory.
    pub(super) fn build(&self, memory: &GuestMemory, event_idx: bool) -> Option<Queue> {
        let mut queue = Queue::new(self.max_size).ok()?;
        queue.try_set_size(u16::try_from(self.size).ok()?).ok()?;
        queue
            .try_set_desc_table_address(GuestAddress(self.descriptors))
            .ok()?;
        queue
            .try_set_avail_ring_address(GuestAddress(self.available))
            .ok()?;
        queue.try_set_used_ring_address(GuestAddress(self.used)).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(self.ready);
        // virtio-queue takes an available ring at address 0 for a queue that was never set up.
        (self.available != 0 && queue.is_valid(memory)).then_some(queue)
    }
}

/// Replaces the low half of `address`.
pub(super) fn set_low(address: &mut u64, value: u32) {
    *address = *address & !0xffff_ffff | u64::from(value);
}

/// Replaces the high half of `address`.
pub(super) fn set_high(address: &mut u64, value: u32) {
    *address = *address & 0xffff_ffff | u64::from(value) << 32;
}
