//! The shadow ring for packets of the guest. Each chain begins with a header slot in shadow memory, of which there is one for each
//! descriptor, and goes on with the guest's own buffers.
//!
//! Which descriptors are free, and which belong to what chain, is kept outside of shadow memory: what vhost returns is an index
//! into it, and nothing else is believed.

use std::io;
use std::sync::Arc;

use virtio::{Access, Descriptor, GuestMemory, OutsideOfRing, RingMemory};
use vm_memory::GuestAddress;
use vsock_device::HEADER_SIZE;

use super::parts::{HEADER_BYTES, Part};
use super::ring::{Ring, ring_bytes};
use crate::vsock::halves::TurnError;

/// Descriptors: for each of a guest's 256 chains one of ours beside its own.
const SIZE: u16 = 512;

const HEADER_SLOT: usize = 64;

/// What it takes of shadow memory: the ring, then the slots.
pub(super) const BYTES: usize = ring_bytes(SIZE) + HEADER_SLOT * SIZE as usize;

/// Chains that vhost may have used without a call.
const MOST_UNTOLD: u16 = 16;

/// From how many descriptors on a driver may have none left soon.
const MANY_DESCRIPTORS: usize = 64;

/// A chain that vhost has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// The guest's chain that it was made of.
    pub(super) guest_head: u16,
    /// Descriptors of its chain here, one more than it has payload.
    pub(super) descriptors: u16,
}

/// The ring, and what is in it.
#[derive(Debug)]
pub(super) struct Packets {
    ring: Ring,
    headers: RingMemory,
    headers_address: GuestAddress,
    /// Descriptors that no chain has, the next one last.
    free: Vec<u16>,
    /// For each descriptor the next one of its chain.
    next: Vec<u16>,
    /// By the first descriptor.
    outstanding: Vec<Option<Sent>>,
    chains: u16,
}

impl Packets {
    /// Empty, at `address` of `shadow`.
    pub(super) fn new(shadow: &Arc<GuestMemory>, address: GuestAddress) -> io::Result<Self> {
        let headers_address = GuestAddress(address.0 + ring_bytes(SIZE) as u64);
        let headers = RingMemory::new(
            Arc::clone(shadow),
            headers_address,
            HEADER_SLOT * usize::from(SIZE),
        );
        Ok(Self {
            ring: Ring::new(shadow, address, SIZE)?,
            headers: headers.ok_or_else(|| io::Error::other("header slots are not in shadow memory"))?,
            headers_address,
            free: (0..SIZE).rev().collect(),
            next: vec![0; SIZE.into()],
            outstanding: vec![None; SIZE.into()],
            chains: 0,
        })
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Whether vhost has chains.
    pub(super) fn has_outstanding(&self) -> bool {
        self.chains > 0
    }

    /// Whether a packet with so many pieces of payload fits.
    pub(super) fn has_room_for(&self, payload: usize) -> bool {
        payload < self.free.len()
    }

    /// Adds a packet. [`publish`](Self::publish) tells vhost.
    ///
    /// # Errors
    /// If there is no room, which [`has_room_for`](Self::has_room_for) would have said.
    pub(super) fn add(
        &mut self,
        guest_head: u16,
        header: &[u8; HEADER_SIZE],
        payload: &[Part],
    ) -> Result<(), TurnError> {
        if !self.has_room_for(payload.len()) {
            return Err(OutsideOfRing.into());
        }
        let head = self.take_free()?;
        let mut index = head;
        let mut piece = self.fill_header_slot(head, header)?;
        for following in payload {
            let next = self.take_free()?;
            self.describe(index, piece, Some(next))?;
            if let Some(link) = self.next.get_mut(usize::from(index)) {
                *link = next;
            }
            (index, piece) = (next, *following);
        }
        self.describe(index, piece, None)?;
        if let Some(chain) = self.outstanding.get_mut(usize::from(head)) {
            // Not more than there are.
            let descriptors = u16::try_from(payload.len() + 1).unwrap_or(SIZE);
            *chain = Some(Sent {
                guest_head,
                descriptors,
            });
        }
        self.chains += 1;
        Ok(self.ring.make_available(head)?)
    }

    fn describe(&self, index: u16, piece: Part, next: Option<u16>) -> Result<(), TurnError> {
        let descriptor = Descriptor {
            address: piece.address,
            length: piece.length,
            access: Access::Read,
            next,
        };
        Ok(descriptor.write(self.ring.table(), index)?)
    }

    fn take_free(&mut self) -> Result<u16, TurnError> {
        Ok(self.free.pop().ok_or(OutsideOfRing)?)
    }

    fn fill_header_slot(&self, slot: u16, header: &[u8; HEADER_SIZE]) -> Result<Part, TurnError> {
        let offset = HEADER_SLOT * usize::from(slot);
        let place = self.headers.slice().subslice(offset, HEADER_SIZE);
        place.map_err(|_| OutsideOfRing)?.copy_from(header);
        Ok(Part {
            address: GuestAddress(self.headers_address.0 + offset as u64),
            length: HEADER_BYTES,
        })
    }

    /// Lets vhost see the packets that were added.
    pub(super) fn publish(&mut self) -> Result<(), TurnError> {
        Ok(self.ring.publish()?)
    }

    /// Takes back the next packet that vhost has used.
    ///
    /// # Errors
    /// If vhost returns what it does not have.
    pub(super) fn take_sent(&mut self) -> Result<Option<Sent>, TurnError> {
        let Some(returned) = self.ring.take_returned()? else {
            return Ok(None);
        };
        let head = u16::try_from(returned.head).map_err(|_| TurnError::Vhost)?;
        let chain = self.outstanding.get_mut(usize::from(head));
        let sent = chain.and_then(Option::take).ok_or(TurnError::Vhost)?;
        self.chains = self.chains.saturating_sub(1);
        self.release(head, sent.descriptors);
        Ok(Some(sent))
    }

    fn release(&mut self, head: u16, descriptors: u16) {
        let mut index = head;
        for _ in 0..descriptors {
            self.free.push(index);
            index = self.next.get(usize::from(index)).copied().unwrap_or_default();
        }
    }

    /// Asks for a call once vhost has used some chains, or three quarters if it has many descriptors: nobody waits for them. Some
    /// may never come back, since vhost throws away what it has no memory for.
    pub(super) fn ask_for_late_call(&self) -> Result<bool, TurnError> {
        let descriptors = usize::from(SIZE) - self.free.len();
        let chains = if descriptors < MANY_DESCRIPTORS {
            MOST_UNTOLD
        } else {
            (self.chains / 4 * 3).min(MOST_UNTOLD)
        };
        Ok(self.ring.ask_for_call_after(chains)?)
    }
}
