//! A shadow ring: a split virtqueue (virtio 1.2, 2.7) seen from the driver's side, with vhost as the device.
//!
//! ```text
//!   offset   bytes
//!   0        16 · size      descriptor table, written by us
//!            6 + 2 · size   available ring, written by us
//!            6 + 8 · size   used ring, written by vhost
//! ```
//!
//! What its descriptors mean, and which of them vhost has, is for [`packets`](super::packets) and [`buffers`](super::buffers):
//! here is the exchange with vhost. EVENT_IDX is always on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio::{DESCRIPTOR_SIZE, GuestMemory, OutsideOfRing, RingMemory, has_passed};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::vhost;
use crate::vsock::halves::TurnError;

/// What vhost returns: the first descriptor of a chain, as vhost says, and how much it says to have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Returned {
    pub(super) head: u32,
    pub(super) written: u32,
}

/// One ring, with its two events.
#[derive(Debug)]
pub(super) struct Ring {
    /// All of it.
    memory: RingMemory,
    /// The descriptors, with which it begins.
    table: RingMemory,
    address: GuestAddress,
    size: u16,
    kick: EventFd,
    call: EventFd,
    /// Chains made available so far, modulo 2¹⁶, and up to which of them vhost has been told.
    available: u16,
    published: u16,
    /// Chains taken back so far, modulo 2¹⁶, and up to which of them vhost was seen to have returned them.
    used: u16,
    seen: u16,
}

/// Where what is in a ring of `size` descriptors. The available ring has flags, index, entries of two bytes, then the used index
/// at which we want a call; the used ring flags, index, entries of eight bytes, then the available index at which vhost wants a kick.
#[derive(Clone, Copy)]
struct Layout {
    size: usize,
}

impl Layout {
    const fn available(self) -> usize {
        DESCRIPTOR_SIZE * self.size
    }

    const fn call_at(self) -> usize {
        self.available() + 4 + 2 * self.size
    }

    const fn used(self) -> usize {
        (self.call_at() + 2).next_multiple_of(64)
    }

    const fn kick_at(self) -> usize {
        self.used() + 4 + 8 * self.size
    }

    const fn bytes(self) -> usize {
        (self.kick_at() + 2).next_multiple_of(64)
    }
}

/// What a ring of so many descriptors takes of shadow memory.
pub(super) const fn ring_bytes(size: u16) -> usize {
    Layout { size: size as usize }.bytes()
}

impl Ring {
    /// An empty ring of `size` descriptors, a power of two, at `address` of `shadow`.
    pub(super) fn new(shadow: &Arc<GuestMemory>, address: GuestAddress, size: u16) -> io::Result<Self> {
        let part = |length| {
            RingMemory::new(Arc::clone(shadow), address, length)
                .ok_or_else(|| io::Error::other("a shadow ring is not in shadow memory"))
        };
        let memory = part(ring_bytes(size))?;
        // What was there before the device was reset.
        memory.slice().copy_from(&vec![0_u8; ring_bytes(size)]);
        Ok(Self {
            memory,
            table: part(DESCRIPTOR_SIZE * usize::from(size))?,
            address,
            size,
            kick: EventFd::new(EFD_NONBLOCK)?,
            call: EventFd::new(EFD_NONBLOCK)?,
            available: 0,
            published: 0,
            used: 0,
            seen: 0,
        })
    }

    /// What vhost has to know of it.
    pub(super) fn for_vhost(&self) -> vhost::Ring<'_> {
        let address = |offset: usize| GuestAddress(self.address.0 + offset as u64);
        vhost::Ring {
            size: self.size,
            descriptors: self.address,
            available: address(self.layout().available()),
            used: address(self.layout().used()),
            kick: &self.kick,
            call: &self.call,
        }
    }

    /// The event that says that vhost has used something.
    pub(super) fn call(&self) -> &EventFd {
        &self.call
    }

    /// Where its descriptors are.
    pub(super) fn table(&self) -> &RingMemory {
        &self.table
    }

    /// Makes the chain that begins with a descriptor available. [`publish`](Self::publish) tells vhost.
    pub(super) fn make_available(&mut self, head: u16) -> Result<(), OutsideOfRing> {
        let offset = self.layout().available() + 4 + 2 * self.place(self.available);
        self.memory.store(offset, head.to_le(), Ordering::Relaxed)?;
        self.available = self.available.wrapping_add(1);
        Ok(())
    }

    /// Lets vhost see the chains that were made available, and kicks it if it waits for one of them.
    pub(super) fn publish(&mut self) -> Result<(), OutsideOfRing> {
        if self.available == self.published {
            return Ok(());
        }
        let index = self.layout().available() + 2;
        self.memory
            .store(index, self.available.to_le(), Ordering::Release)?;
        // vhost sets the index that it wants a kick at, then looks at ours; we do the reverse (virtio 1.2, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let kick_at = self.load(self.layout().kick_at(), Ordering::Relaxed)?;
        if has_passed(kick_at, self.published, self.available) {
            // Refused only when the counter is full, and then the event is pending.
            let _ = self.kick.write(1);
        }
        self.published = self.available;
        Ok(())
    }

    /// Takes back the next chain that vhost has used.
    ///
    /// # Errors
    /// If vhost returns more than it can have.
    pub(super) fn take_returned(&mut self) -> Result<Option<Returned>, TurnError> {
        if self.used == self.seen {
            self.seen = self.used_index(Ordering::Acquire)?;
            if self.used == self.seen {
                return Ok(None);
            }
            if self.seen.wrapping_sub(self.used) > self.size {
                return Err(TurnError::Vhost);
            }
        }
        let element = self.layout().used() + 4 + 8 * self.place(self.used);
        let half = |offset| {
            self.memory
                .load::<u32>(offset, Ordering::Relaxed)
                .map(u32::from_le)
        };
        self.used = self.used.wrapping_add(1);
        Ok(Some(Returned {
            head: half(element)?,
            written: half(element + 4)?,
        }))
    }

    /// Asks for a call once vhost has used so many chains more than the next. True if it has already: look again.
    pub(super) fn ask_for_call_after(&self, chains: u16) -> Result<bool, OutsideOfRing> {
        let call_at = self.used.wrapping_add(chains);
        self.memory
            .store(self.layout().call_at(), call_at.to_le(), Ordering::Relaxed)?;
        // vhost sets its index, then looks at ours.
        fence(Ordering::SeqCst);
        let used = self.used_index(Ordering::Relaxed)?;
        Ok(used.wrapping_sub(self.used) > chains)
    }

    fn used_index(&self, order: Ordering) -> Result<u16, OutsideOfRing> {
        self.load(self.layout().used() + 2, order)
    }

    fn load(&self, offset: usize, order: Ordering) -> Result<u16, OutsideOfRing> {
        self.memory.load(offset, order).map(u16::from_le)
    }

    fn layout(&self) -> Layout {
        Layout {
            size: self.size.into(),
        }
    }

    /// The size is a power of two.
    fn place(&self, number: u16) -> usize {
        usize::from(number & (self.size - 1))
    }
}
