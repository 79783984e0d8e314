//! The queues of a running device.
//!
//! A split virtqueue (virtio 1.2, 2.7) is three arrays in guest memory: descriptors, the ring of chains the driver makes
//! available, and the ring of chains the device has used. [`ActiveQueue`] is the device's end of it, together with the
//! doorbell that wakes the device and the interrupt that wakes the driver.
//!
//! ```text
//!   descriptor table     16 bytes each           read, chain by chain      table, chain
//!   available ring       flags, index, heads     read      ┐
//!                        used_event              read      │               rings
//!   used ring            flags, index, elements  written   │
//!                        avail_event             written   ┘
//! ```
//!
//! The index of the available ring is read when all chains before it are taken, a head when its chain is taken, a descriptor each
//! time it is asked for: two walks of a chain may differ, but what was checked is not read again to be used. Guest memory in which buffers lie is passed to each call
//! rather than owned, so that slices of a chain outlive the next call on the queue: a device can take several chains, fill them
//! with one system call, and return them one by one.

mod chain;
mod ring_memory;
mod rings;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use vmm_sys_util::eventfd::EventFd;

pub use self::chain::{Chain, Descriptors, MalformedChain, slice_in_one_region};
pub use self::ring_memory::{OutsideOfRing, RingMemory};
pub(crate) use self::rings::{Layout, Rings};
pub use self::table::{Access, DESCRIPTOR_SIZE, Descriptor};
use crate::{GuestMemory, GuestSlice, Interrupt};

/// A queue in use by a running device.
#[derive(Debug)]
pub struct ActiveQueue {
    rings: Rings,
    /// VIRTIO_F_EVENT_IDX was agreed on.
    event_idx: bool,
    /// Chains taken so far, modulo 2¹⁶, and how many the driver had made available when that was last looked at.
    taken: u16,
    available: u16,
    /// Chains returned so far, modulo 2¹⁶, and up to which of them the driver was considered for an interrupt.
    returned: u16,
    announced: u16,
    doorbell: Arc<EventFd>,
    interrupt: Interrupt,
}

/// The rings themselves are unusable; the device must stop and ask to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The index of the available ring is further than a ring ahead of the device.
    #[error("the driver has broken its virtqueue: more chains are available than it has room for")]
    TooManyAvailable,
    /// An entry of the available ring, or the chain that the device returns.
    #[error("the driver has broken its virtqueue: there is no descriptor {0}")]
    NoDescriptor(u16),
    /// Does not happen: the rings were found inside guest memory.
    #[error("the VMM has made a mistake with a virtqueue: {0}")]
    Memory(#[from] OutsideOfRing),
}

impl ActiveQueue {
    /// The most pieces of guest memory in one chain. Enough for any queue of 256 descriptors, and few enough for one
    /// scattered read or write (IOV_MAX is 1024).
    pub const MAX_PARTS: usize = 256;

    pub(crate) fn new(rings: Rings, event_idx: bool, doorbell: Arc<EventFd>, interrupt: Interrupt) -> Self {
        Self {
            rings,
            event_idx,
            taken: 0,
            available: 0,
            returned: 0,
            announced: 0,
            doorbell,
            interrupt,
        }
    }

    /// The event that the driver's QueueNotify writes come in on. It stays the same across resets.
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// Its size in descriptors.
    pub fn size(&self) -> u16 {
        self.rings.size()
    }

    /// Takes the next available chain, if there is one.
    ///
    /// # Errors
    ///
    /// If the available ring makes no sense, for example because its index ran ahead by more than the queue's size.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        if self.taken == self.available && !self.look_for_more()? {
            return Ok(None);
        }
        let head = self.rings.available_entry(self.taken)?;
        self.check(head)?;
        self.taken = self.taken.wrapping_add(1);
        Ok(Some(Chain { head }))
    }

    /// Whether the driver has made chains available since it was last looked at.
    fn look_for_more(&mut self) -> Result<bool, QueueError> {
        // Whoever sees the index sees what the driver has written before it.
        let index = self.rings.available_index(Ordering::Acquire)?;
        if index.wrapping_sub(self.taken) > self.size() {
            return Err(QueueError::TooManyAvailable);
        }
        self.available = index;
        Ok(index != self.taken)
    }

    /// Puts the chain that was taken last back, to be taken again. May be repeated for chains that were taken before it, as
    /// long as none of them has been returned to the driver.
    pub fn undo_pop(&mut self) {
        self.taken = self.taken.wrapping_sub(1);
    }

    /// The descriptors of a chain, read one by one.
    pub fn descriptors(&self, chain: Chain) -> Descriptors<'_> {
        let most = usize::from(self.size()).min(Self::MAX_PARTS);
        Descriptors::new(self.rings.descriptors(), chain.head, most)
    }

    /// Appends the pieces of guest memory of those descriptors of `chain` that `access` names to `parts`, in order. Returns the
    /// number of bytes in them.
    ///
    /// # Errors
    ///
    /// [`MalformedChain`]; `parts` then holds what it held before.
    pub fn collect_parts<'m>(
        &self,
        chain: Chain,
        access: Access,
        memory: &'m GuestMemory,
        parts: &mut Vec<GuestSlice<'m>>,
    ) -> Result<usize, MalformedChain> {
        let before = parts.len();
        let descriptors = self.descriptors(chain);
        let collected = chain::append_parts(descriptors, access, memory, parts, Self::MAX_PARTS);
        if collected.is_err() {
            parts.truncate(before);
        }
        collected
    }

    /// Returns a chain to the driver, with `written` bytes written into it. The driver learns of it with the next
    /// [`notify`](Self::notify).
    ///
    /// # Errors
    ///
    /// If `head` is no descriptor of this queue.
    pub fn push_used(&mut self, head: u16, written: u32) -> Result<(), QueueError> {
        self.check(head)?;
        self.rings.set_used_element(self.returned, head, written)?;
        self.returned = self.returned.wrapping_add(1);
        // Whoever sees the index sees the element and what was written into the chain.
        Ok(self.rings.set_used_index(self.returned, Ordering::Release)?)
    }

    fn check(&self, head: u16) -> Result<(), QueueError> {
        if head < self.size() {
            return Ok(());
        }
        Err(QueueError::NoDescriptor(head))
    }

    /// Interrupts the driver if chains were returned since the last call and it wants to know. One call per batch.
    ///
    /// # Errors
    ///
    /// If the rings are unusable.
    pub fn notify(&mut self) -> Result<(), QueueError> {
        if self.needs_interrupt()? {
            self.interrupt.signal_used();
        }
        Ok(())
    }

    /// Whether the driver is to be interrupted for the chains that were returned since the last call. For a device that
    /// serves several queues and raises one interrupt for all of them; the caller raises it if this is true.
    ///
    /// # Errors
    ///
    /// If the rings are unusable.
    pub fn needs_interrupt(&mut self) -> Result<bool, QueueError> {
        let announced = std::mem::replace(&mut self.announced, self.returned);
        if announced == self.returned {
            return Ok(false);
        }
        // The driver says what it wants, then looks at the used ring; the device does the reverse.
        fence(Ordering::SeqCst);
        if self.event_idx {
            let event = self.rings.used_event()?;
            return Ok(has_passed(event, announced, self.returned));
        }
        // Without EVENT_IDX a driver says in a flag that it wants no interrupts (virtio 1.2, 2.7.7).
        let flags = u32::from(self.rings.available_flags()?);
        Ok(flags & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver not to ring the doorbell: the device is looking at the queue anyway. A hint; it may ring all the same.
    ///
    /// # Errors
    ///
    /// If the rings are unusable.
    pub fn disable_doorbell(&mut self) -> Result<(), QueueError> {
        // With EVENT_IDX it rings once for an index that it has passed, and is not asked for the next.
        if !self.event_idx {
            self.rings.set_doorbell_wanted(false)?;
        }
        Ok(())
    }

    /// Asks the driver to ring the doorbell for the next chain. If this returns true there is already one: look again.
    ///
    /// # Errors
    ///
    /// If the rings are unusable.
    pub fn enable_doorbell(&mut self) -> Result<bool, QueueError> {
        if self.event_idx {
            self.rings.set_available_event(self.taken)?;
        } else {
            self.rings.set_doorbell_wanted(true)?;
        }
        // The driver makes a chain available, then looks whether a ring is wanted; the device does the reverse.
        fence(Ordering::SeqCst);
        Ok(self.rings.available_index(Ordering::Relaxed)? != self.taken)
    }
}

/// Whether index `at` is among those from `old` up to but without `new` (`vring_need_event` of virtio 1.2, 2.7.10.1).
pub fn has_passed(at: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(at).wrapping_sub(1) < new.wrapping_sub(old)
}
