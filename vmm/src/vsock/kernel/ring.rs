//! A shadow ring: a split virtqueue (virtio 1.2, 2.7) seen from the driver's side, with vhost as the device.
//!
//! ```text
//!   offset   bytes
//!   0        16 · SIZE      descriptor table
//!            6 + 2 · SIZE   available ring, written by us
//!            6 + 8 · SIZE   used ring, written by vhost
//!            64 · SIZE      a slot for one header per chain, that of the chain's first descriptor
//! ```
//!
//! Which descriptors are free, and which belong to what chain, is kept outside of that memory: what vhost writes back is an index
//! into it, and nothing else is believed. EVENT_IDX is always on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::desc::split::Descriptor;
use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vsock_device::HEADER_SIZE;

use super::parts::{HEADER_BYTES, Part};
use super::vhost;
use crate::vsock::halves::TurnError;

/// Descriptors: for each of a guest's 256 chains one of ours beside its own.
pub(super) const SIZE: u16 = 512;

const TABLE: usize = 0;
const AVAILABLE: usize = TABLE + 16 * SIZE as usize;
const USED: usize = AVAILABLE + (6 + 2 * SIZE as usize).next_multiple_of(64);
const HEADERS: usize = USED + (6 + 8 * SIZE as usize).next_multiple_of(64);
const HEADER_SLOT: usize = 64;

/// `VRING_DESC_F_NEXT` and `VRING_DESC_F_WRITE`, as wide as the field.
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// What one ring takes of shadow memory.
pub(super) const RING_BYTES: usize = (HEADERS + HEADER_SLOT * SIZE as usize).next_multiple_of(4096);

/// Fields of the available ring: flags, index, entries, then the used index at which we want a call.
const AVAILABLE_INDEX: usize = AVAILABLE + 2;
const AVAILABLE_ENTRIES: usize = AVAILABLE + 4;
const CALL_AT: usize = AVAILABLE_ENTRIES + 2 * SIZE as usize;
/// Fields of the used ring: flags, index, entries of eight bytes, then the available index at which vhost wants a kick.
const USED_INDEX: usize = USED + 2;
const USED_ENTRIES: usize = USED + 4;
const KICK_AT: usize = USED_ENTRIES + 8 * SIZE as usize;

/// Chains that vhost may have used without a call.
const MOST_UNTOLD: u16 = 16;

/// From how many descriptors on a driver may have none left soon.
const MANY_DESCRIPTORS: usize = 64;

/// Who writes to the buffers of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// We do: packets of the guest.
    ToKernel,
    /// vhost does: packets for the guest.
    ToGuest,
}

/// A chain that vhost has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// Whose header slot it has.
    pub(super) slot: Slot,
    /// The guest's chain that it was made of.
    pub(super) guest_head: u16,
    /// Bytes that vhost says to have written, header included.
    pub(super) written: u32,
    /// Descriptors of its chain here, one more than it has payload.
    pub(super) descriptors: u16,
}

/// The number of a chain, of its header slot, and of its first descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u16);

impl Slot {
    /// Below [`SIZE`].
    pub(super) fn index(self) -> usize {
        self.0.into()
    }
}

/// A chain that vhost has.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    guest_head: u16,
    descriptors: u16,
}

/// One ring, with its two events.
#[derive(Debug)]
pub(super) struct Ring {
    shadow: Arc<GuestRegionMmap>,
    base: usize,
    direction: Direction,
    kick: EventFd,
    call: EventFd,
    /// Descriptors that no chain has, the next one last.
    free: Vec<u16>,
    /// For each descriptor the next one of its chain.
    next: Vec<u16>,
    /// By the first descriptor.
    outstanding: Vec<Option<Outstanding>>,
    chains: u16,
    /// Chains made available so far, modulo 2¹⁶, and up to which of them vhost has been told.
    available: u16,
    published: u16,
    /// Chains taken back so far, modulo 2¹⁶.
    used: u16,
}

impl Ring {
    /// The empty ring number `index` of shadow memory.
    pub(super) fn new(shadow: Arc<GuestRegionMmap>, index: usize, direction: Direction) -> io::Result<Self> {
        let base = index * RING_BYTES;
        let zeros = vec![0; RING_BYTES];
        shadow
            .write_slice(&zeros, MemoryRegionAddress(base as u64))
            .map_err(io::Error::other)?;
        Ok(Self {
            shadow,
            base,
            direction,
            kick: EventFd::new(EFD_NONBLOCK)?,
            call: EventFd::new(EFD_NONBLOCK)?,
            free: (0..SIZE).rev().collect(),
            next: vec![0; SIZE.into()],
            outstanding: vec![None; SIZE.into()],
            chains: 0,
            available: 0,
            published: 0,
            used: 0,
        })
    }

    /// What vhost has to know of it.
    pub(super) fn for_vhost(&self) -> vhost::Ring<'_> {
        vhost::Ring {
            size: SIZE,
            descriptors: self.guest_address(TABLE),
            available: self.guest_address(AVAILABLE),
            used: self.guest_address(USED),
            kick: &self.kick,
            call: &self.call,
        }
    }

    /// The event that says that vhost has used something.
    pub(super) fn call(&self) -> &EventFd {
        &self.call
    }

    /// Whether a chain of a header and this many further pieces fits.
    pub(super) fn has_room_for(&self, payload: usize) -> bool {
        payload < self.free.len()
    }

    /// The slot of the next chain's header, if there is room for one.
    fn next_slot(&self) -> Option<Slot> {
        self.free.last().copied().map(Slot)
    }

    /// Makes a chain available: the header in the next slot, then `payload`. [`publish`](Self::publish) tells vhost.
    ///
    /// # Errors
    /// If there is no room, which [`has_room_for`](Self::has_room_for) would have said.
    pub(super) fn add(&mut self, guest_head: u16, payload: &[Part]) -> Result<Slot, TurnError> {
        let slot = self.next_slot().filter(|_| self.has_room_for(payload.len()));
        let slot = slot.ok_or(TurnError::Vhost)?;
        let header = Part {
            address: self.guest_address(header_offset(slot)),
            length: HEADER_BYTES,
        };
        let mut descriptors = 0;
        let mut previous: Option<u16> = None;
        let mut pieces = std::iter::once(&header).chain(payload).peekable();
        while let Some(piece) = pieces.next() {
            let index = self.free.pop().ok_or(TurnError::Vhost)?;
            let following = self.free.last().copied().unwrap_or_default();
            self.describe(index, piece, pieces.peek().map(|_| following))?;
            if let Some(next) = previous.and_then(|previous| self.next.get_mut(usize::from(previous))) {
                *next = index;
            }
            previous = Some(index);
            descriptors += 1;
        }
        if let Some(chain) = self.outstanding.get_mut(slot.index()) {
            *chain = Some(Outstanding {
                guest_head,
                descriptors,
            });
        }
        self.chains += 1;
        let entry = AVAILABLE_ENTRIES + 2 * usize::from(self.available % SIZE);
        self.store(entry, slot.0, Ordering::Relaxed)?;
        self.available = self.available.wrapping_add(1);
        Ok(slot)
    }

    fn describe(&self, index: u16, piece: &Part, next: Option<u16>) -> Result<(), TurnError> {
        let mut flags = 0;
        if next.is_some() {
            flags |= NEXT;
        }
        if self.direction == Direction::ToGuest {
            flags |= WRITE;
        }
        let descriptor = Descriptor::new(piece.address.0, piece.length, flags, next.unwrap_or_default());
        let address = self.region_address(TABLE + 16 * usize::from(index));
        self.shadow
            .write_obj(descriptor, address)
            .map_err(|_| TurnError::Vhost)
    }

    /// Lets vhost see the chains that were added, and kicks it if it waits for one of them.
    pub(super) fn publish(&mut self) -> Result<(), TurnError> {
        if self.available == self.published {
            return Ok(());
        }
        self.store(AVAILABLE_INDEX, self.available, Ordering::Release)?;
        // vhost sets the index that it wants a kick at, then looks at ours; we do the reverse (virtio 1.2, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let kick_at = self.load(KICK_AT, Ordering::Relaxed)?;
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
    /// If vhost returns what it does not have.
    pub(super) fn take_used(&mut self) -> Result<Option<Used>, TurnError> {
        if self.load(USED_INDEX, Ordering::Acquire)? == self.used {
            return Ok(None);
        }
        let entry = self.region_address(USED_ENTRIES + 8 * usize::from(self.used % SIZE));
        let [head, written]: [u32; 2] = self.shadow.read_obj(entry).map_err(|_| TurnError::Vhost)?;
        let head = u16::try_from(head).map_err(|_| TurnError::Vhost)?;
        let chain = self
            .outstanding
            .get_mut(usize::from(head))
            .and_then(Option::take)
            .ok_or(TurnError::Vhost)?;
        self.used = self.used.wrapping_add(1);
        self.chains = self.chains.saturating_sub(1);
        self.release(head, chain.descriptors);
        Ok(Some(Used {
            slot: Slot(head),
            guest_head: chain.guest_head,
            written,
            descriptors: chain.descriptors,
        }))
    }

    fn release(&mut self, head: u16, descriptors: u16) {
        let mut index = head;
        for _ in 0..descriptors {
            self.free.push(index);
            index = self.next.get(usize::from(index)).copied().unwrap_or_default();
        }
    }

    /// Asks for a call at the next chain that vhost uses. True if there is one already: look again.
    pub(super) fn ask_for_call(&self) -> Result<bool, TurnError> {
        self.ask_for_call_after(0)
    }

    /// Asks for a call once vhost has used so many chains, or three quarters if it has many descriptors: for chains that nobody
    /// waits for. Some may never come back, since vhost throws away what it has no memory for.
    pub(super) fn ask_for_late_call(&self) -> Result<bool, TurnError> {
        let descriptors = usize::from(SIZE) - self.free.len();
        let chains = if descriptors < MANY_DESCRIPTORS {
            MOST_UNTOLD
        } else {
            (self.chains / 4 * 3).min(MOST_UNTOLD)
        };
        self.ask_for_call_after(chains)
    }

    /// Whether vhost has chains.
    pub(super) fn has_outstanding(&self) -> bool {
        self.chains > 0
    }

    fn ask_for_call_after(&self, chains: u16) -> Result<bool, TurnError> {
        self.store(CALL_AT, self.used.wrapping_add(chains), Ordering::Relaxed)?;
        // vhost sets its index, then looks at ours.
        fence(Ordering::SeqCst);
        let used = self.load(USED_INDEX, Ordering::Relaxed)?;
        Ok(used.wrapping_sub(self.used) > chains)
    }

    /// The header in a slot.
    pub(super) fn header(&self, slot: Slot) -> Result<[u8; HEADER_SIZE], TurnError> {
        let mut bytes = [0; HEADER_SIZE];
        self.shadow
            .read_slice(&mut bytes, self.region_address(header_offset(slot)))
            .map_err(|_| TurnError::Vhost)?;
        Ok(bytes)
    }

    /// Puts a header into a slot.
    pub(super) fn set_header(&self, slot: Slot, bytes: &[u8; HEADER_SIZE]) -> Result<(), TurnError> {
        self.shadow
            .write_slice(bytes, self.region_address(header_offset(slot)))
            .map_err(|_| TurnError::Vhost)
    }

    fn store(&self, offset: usize, value: u16, order: Ordering) -> Result<(), TurnError> {
        let stored = self
            .shadow
            .store(value.to_le(), self.region_address(offset), order);
        stored.map_err(|_: GuestMemoryError| TurnError::Vhost)
    }

    fn load(&self, offset: usize, order: Ordering) -> Result<u16, TurnError> {
        let loaded: Result<u16, GuestMemoryError> = self.shadow.load(self.region_address(offset), order);
        loaded.map(u16::from_le).map_err(|_| TurnError::Vhost)
    }

    fn region_address(&self, offset: usize) -> MemoryRegionAddress {
        MemoryRegionAddress((self.base + offset) as u64)
    }

    fn guest_address(&self, offset: usize) -> GuestAddress {
        self.shadow
            .start_addr()
            .unchecked_add((self.base + offset) as u64)
    }
}

fn header_offset(slot: Slot) -> usize {
    HEADERS + HEADER_SLOT * slot.index()
}

/// Whether index `at` is among those from `old` up to but without `new` (`vring_need_event`).
fn has_passed(at: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(at).wrapping_sub(1) < new.wrapping_sub(old)
}
