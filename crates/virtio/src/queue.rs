//! The queues of a running device.
//!
//! A split virtqueue (virtio 1.2, 2.7) is three arrays in guest memory: descriptors, the ring of chains the driver makes
//! available, and the ring of chains the device has used. [`ActiveQueue`] is the device's end of it, together with the
//! doorbell that wakes the device and the interrupt that wakes the driver.
//!
//! Memory is passed to each call rather than owned, so that slices of a chain outlive the next call on the queue: a device
//! can take several chains, fill them with one system call, and return them one by one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};
use vmm_sys_util::eventfd::EventFd;

use crate::{GuestMemory, GuestSlice, Interrupt};

/// A chain of descriptors that the driver has made available.
pub type Chain<'m> = DescriptorChain<&'m GuestMemory>;

/// A queue in use by a running device.
#[derive(Debug)]
pub struct ActiveQueue {
    queue: Queue,
    doorbell: Arc<EventFd>,
    interrupt: Interrupt,
    /// Chains have been returned since the driver was last considered for an interrupt.
    unannounced: bool,
}

/// The rings themselves are unusable; the device must stop and ask to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the driver has broken its virtqueue")]
pub struct QueueError(#[source] virtio_queue::Error);

/// A chain that the device cannot use: a piece of it lies outside guest memory, or it has more than
/// [`ActiveQueue::MAX_PARTS`] pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the descriptor chain has too many parts or leaves guest memory")]
pub struct MalformedChain;

/// Which descriptors of a chain are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Those the device reads.
    Read,
    /// Those the device writes.
    Write,
}

impl ActiveQueue {
    /// The most pieces of guest memory in one chain. Enough for any queue of 256 descriptors, and few enough for one
    /// scattered read or write (IOV_MAX is 1024).
    pub const MAX_PARTS: usize = 256;

    pub(crate) fn new(queue: Queue, doorbell: Arc<EventFd>, interrupt: Interrupt) -> Self {
        Self {
            queue,
            doorbell,
            interrupt,
            unannounced: false,
        }
    }

    /// The event that the driver's QueueNotify writes come in on. It stays the same across resets.
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// Takes the next available chain, if there is one.
    ///
    /// # Errors
    ///
    /// If the available ring makes no sense, for example because its index ran ahead by more than the queue's size.
    pub fn pop<'m>(&mut self, memory: &'m GuestMemory) -> Result<Option<Chain<'m>>, QueueError> {
        Ok(self.queue.iter(memory).map_err(QueueError)?.next())
    }

    /// Puts the chain that was taken last back, to be taken again. May be repeated for chains that were taken before it, as
    /// long as none of them has been returned to the driver.
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Returns the chain that starts at descriptor `head` to the driver, with `written` bytes written into it.
    /// The driver learns of it with the next [`notify`](Self::notify).
    ///
    /// # Errors
    ///
    /// If `head` is no descriptor of this queue or the used ring has become unreachable.
    pub fn push_used(&mut self, memory: &GuestMemory, head: u16, written: u32) -> Result<(), QueueError> {
        self.queue.add_used(memory, head, written).map_err(QueueError)?;
        self.unannounced = true;
        Ok(())
    }

    /// Interrupts the driver if chains were returned since the last call and it wants to know. One call per batch.
    ///
    /// # Errors
    ///
    /// If the rings have become unreachable.
    pub fn notify(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        if self.needs_interrupt(memory)? {
            self.interrupt.signal_used();
        }
        Ok(())
    }

    /// Whether the driver is to be interrupted for the chains that were returned since the last call. For a device that
    /// serves several queues and raises one interrupt for all of them; the caller raises it if this is true.
    ///
    /// # Errors
    ///
    /// If the rings have become unreachable.
    pub fn needs_interrupt(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        if !std::mem::take(&mut self.unannounced) {
            return Ok(false);
        }
        // Also the fence between the used ring and the flags read below.
        let wanted = self.queue.needs_notification(memory).map_err(QueueError)?;
        Ok(wanted && !self.interrupts_suppressed(memory)?)
    }

    /// Asks the driver not to ring the doorbell: the device is looking at the queue anyway. A hint; it may ring all the same.
    ///
    /// # Errors
    ///
    /// If the used ring has become unreachable.
    pub fn disable_doorbell(&mut self, memory: &GuestMemory) -> Result<(), QueueError> {
        self.queue.disable_notification(memory).map_err(QueueError)
    }

    /// Asks the driver to ring the doorbell for the next chain. If this returns true there is already one: look again.
    ///
    /// # Errors
    ///
    /// If the rings have become unreachable.
    pub fn enable_doorbell(&mut self, memory: &GuestMemory) -> Result<bool, QueueError> {
        self.queue.enable_notification(memory).map_err(QueueError)
    }

    /// Without EVENT_IDX a driver says in a flag that it wants no interrupts (virtio 1.2, 2.7.7); with it the flag is unused.
    fn interrupts_suppressed(&self, memory: &GuestMemory) -> Result<bool, QueueError> {
        if self.queue.event_idx_enabled() {
            return Ok(false);
        }
        let flags: u16 = memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(|e| QueueError(virtio_queue::Error::GuestMemory(e)))?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT != 0)
    }
}

/// Appends the pieces of guest memory of those descriptors of `chain` that `access` names to `parts`, in order. Returns the
/// number of bytes in them.
///
/// # Errors
///
/// [`MalformedChain`]; `parts` then holds what it held before.
pub fn collect_parts<'m>(
    chain: Chain<'m>,
    access: Access,
    memory: &'m GuestMemory,
    parts: &mut Vec<GuestSlice<'m>>,
) -> Result<usize, MalformedChain> {
    let before = parts.len();
    let collected = append_parts(chain, access, memory, parts);
    if collected.is_err() {
        parts.truncate(before);
    }
    collected
}

fn append_parts<'m>(
    chain: Chain<'m>,
    access: Access,
    memory: &'m GuestMemory,
    parts: &mut Vec<GuestSlice<'m>>,
) -> Result<usize, MalformedChain> {
    let limit = parts.len() + ActiveQueue::MAX_PARTS;
    let permissions = match access {
        Access::Read => Permissions::Read,
        Access::Write => Permissions::Write,
    };
    let mut bytes = 0;
    // Every descriptor counts, also those of the other direction and empty ones: a chain of 65535 of them is not walked.
    for (index, descriptor) in chain.enumerate() {
        if index >= ActiveQueue::MAX_PARTS {
            return Err(MalformedChain);
        }
        if descriptor.is_write_only() != (access == Access::Write) {
            continue;
        }
        let slices = memory
            .get_slices(descriptor.addr(), descriptor.len() as usize, permissions)
            .map_err(|_| MalformedChain)?;
        for part in slices {
            if parts.len() >= limit {
                return Err(MalformedChain);
            }
            let part = part.map_err(|_| MalformedChain)?;
            bytes += part.len();
            parts.push(part);
        }
    }
    Ok(bytes)
}
