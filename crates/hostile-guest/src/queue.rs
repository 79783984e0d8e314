//! A split virtqueue (virtio 1.2, 2.7), its driver's side, without any check: attacks put into it what they want.

use crate::memory::{self, SHARED};
use crate::processor::fence;

/// Where the queue number 0 is, and bytes from one to the next.
const QUEUES: u64 = SHARED.start;
const STRIDE: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;

/// Flags of a descriptor.
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// One entry of the descriptor table.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

/// A queue, and what its driver knows of it.
#[derive(Debug)]
pub(crate) struct Queue {
    index: u32,
    size: u16,
    base: u64,
    available: u16,
    used: u16,
}

impl Queue {
    /// An empty queue of `size` descriptors; `place` says which memory it has.
    pub(crate) fn new(place: u64, index: u32, size: u16) -> Self {
        let base = QUEUES + place * STRIDE;
        memory::clear(base, STRIDE);
        Self {
            index,
            // None, if the second processor has selected a queue that there is not before the size was read.
            size: size.max(1),
            base,
            available: 0,
            used: 0,
        }
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Of descriptor table, available ring and used ring.
    pub(crate) fn addresses(&self) -> [u64; 3] {
        [self.base, self.base + AVAILABLE, self.base + USED]
    }

    pub(crate) fn describe(&self, index: u16, entry: Descriptor) {
        let at = self.base + u64::from(index % 256) * 16;
        memory::write(at, entry.address);
        memory::write(at + 8, entry.length);
        memory::write(at + 12, entry.flags);
        memory::write(at + 14, entry.next);
    }

    /// Makes the chain that begins with descriptor `head` available.
    pub(crate) fn offer(&mut self, head: u16) {
        let entry = self.base + AVAILABLE + 4 + u64::from(self.available % self.size) * 2;
        memory::write(entry, head);
        self.set_available(self.available.wrapping_add(1));
    }

    /// The number of chains made available, whatever is true.
    pub(crate) fn set_available(&mut self, index: u16) {
        fence();
        self.available = index;
        memory::write(self.base + AVAILABLE + 2, index);
        fence();
    }

    pub(crate) fn available(&self) -> u16 {
        self.available
    }

    /// Flags of the available ring, and the used index at which an interrupt is wanted.
    pub(crate) fn set_interrupts(&self, flags: u16, at: u16) {
        memory::write(self.base + AVAILABLE, flags);
        memory::write(self.base + AVAILABLE + 4 + u64::from(self.size) * 2, at);
    }

    /// The next chain that the device has returned, and what it says to have written.
    pub(crate) fn take_used(&mut self) -> Option<(u16, u32)> {
        let index: u16 = memory::read(self.base + USED + 2);
        if index == self.used {
            return None;
        }
        fence();
        let entry = self.base + USED + 4 + u64::from(self.used % self.size) * 8;
        self.used = self.used.wrapping_add(1);
        let head: u32 = memory::read(entry);
        let head = u16::try_from(head).ok().filter(|head| *head < 256);
        Some((head.unwrap_or(0), memory::read(entry + 4)))
    }
}
