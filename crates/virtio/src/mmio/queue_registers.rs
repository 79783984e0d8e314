//! What the driver has written about one queue, before anybody believes it.

use std::sync::Arc;

use crate::GuestMemory;
use crate::queue::{Layout, Rings};

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

    /// The rings that the registers describe, if the driver has made the queue ready, its size is a power of two within the
    /// maximum, and its three arrays are aligned and inside guest memory.
    pub(super) fn rings(&self, memory: &Arc<GuestMemory>) -> Option<Rings> {
        let size = u16::try_from(self.size)
            .ok()
            .filter(|size| *size <= self.max_size)?;
        // An available ring at address 0 is one that was never set up.
        if !self.ready || self.available == 0 {
            return None;
        }
        let layout = Layout {
            size,
            descriptors: self.descriptors,
            available: self.available,
            used: self.used,
        };
        Rings::new(memory, layout)
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
