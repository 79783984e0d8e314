//! The shadow ring for packets to the guest: the guest's own buffers, under the guest's own numbers.
//!
//! vhost writes header and payload straight to where the guest wants them. So each descriptor of the guest becomes the descriptor of
//! the same number here, once it is known to be inside of guest memory; nothing else has to be remembered of a chain but that vhost
//! has it. A driver that uses a descriptor twice at once gets its packets mixed up, as with any device, or no more of them.
//!
//! It reaches nothing but its own memory all the same. Each descriptor in the table, or half of one that vhost reads while it is
//! written, has an address in guest memory, and no length leads from there into shadow memory.

use std::io;
use std::sync::Arc;

use virtio::{Access, ActiveQueue, Chain, Descriptor, Descriptors, GuestMemory, OutsideOfRing};
use vm_memory::GuestAddress;

use super::parts::{HEADER_BYTES, Part, is_inside};
use super::ring::{Ring, ring_bytes};
use crate::vsock::halves::TurnError;

/// The largest queue of a guest.
pub(super) const MOST: u16 = 256;

/// What it takes of shadow memory.
pub(super) const BYTES: usize = ring_bytes(MOST);

/// A buffer that vhost has filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) head: u16,
    /// Bytes, header included, as vhost says.
    pub(super) written: u32,
}

/// What has become of a buffer that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// vhost gets it.
    Taken,
    /// It cannot be used, and vhost does not get it.
    Unusable,
}

/// The ring, and what is in it.
#[derive(Debug)]
pub(super) struct Buffers {
    ring: Ring,
    /// For each descriptor whether vhost has the chain that begins with it.
    outstanding: Vec<bool>,
    /// The chain at hand. Kept for its memory.
    chain: Vec<(u16, Descriptor)>,
}

impl Buffers {
    /// Empty, at `address` of `shadow`, for a queue of the guest of `size` descriptors.
    pub(super) fn new(shadow: &Arc<GuestMemory>, address: GuestAddress, size: u16) -> io::Result<Self> {
        if size > MOST {
            return Err(io::Error::other(format!(
                "a receive queue has at most {MOST} descriptors, not {size}"
            )));
        }
        Ok(Self {
            ring: Ring::new(shadow, address, size)?,
            outstanding: vec![false; size.into()],
            chain: Vec::new(),
        })
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Takes a buffer of the guest. [`publish`](Self::publish) tells vhost.
    ///
    /// # Errors
    /// If the guest offers a buffer that vhost has.
    pub(super) fn add(
        &mut self,
        queue: &ActiveQueue,
        chain: Chain,
        memory: &GuestMemory,
    ) -> Result<Offered, TurnError> {
        let outstanding = self.outstanding.get_mut(usize::from(chain.head()));
        let outstanding = outstanding.ok_or(OutsideOfRing)?;
        if *outstanding {
            return Err(TurnError::OfferedTwice);
        }
        self.chain.clear();
        for descriptor in queue.descriptors(chain) {
            match descriptor {
                Ok(found) if is_buffer(&found.1, memory) => self.chain.push(found),
                _ => return Ok(Offered::Unusable),
            }
        }
        let lengths = self.chain.iter().map(|(_, descriptor)| descriptor.length);
        if lengths.fold(0, u32::saturating_add) < HEADER_BYTES {
            return Ok(Offered::Unusable);
        }
        for (index, descriptor) in &self.chain {
            descriptor.write(self.ring.table(), *index)?;
        }
        *outstanding = true;
        self.ring.make_available(chain.head())?;
        Ok(Offered::Taken)
    }

    /// Lets vhost see the buffers that were added.
    pub(super) fn publish(&mut self) -> Result<(), TurnError> {
        Ok(self.ring.publish()?)
    }

    /// Takes back the next buffer that vhost has filled.
    ///
    /// # Errors
    /// If vhost returns what it does not have.
    pub(super) fn take_filled(&mut self) -> Result<Option<Filled>, TurnError> {
        let Some(returned) = self.ring.take_returned()? else {
            return Ok(None);
        };
        let head = u16::try_from(returned.head).map_err(|_| TurnError::Vhost)?;
        let outstanding = self
            .outstanding
            .get_mut(usize::from(head))
            .ok_or(TurnError::Vhost)?;
        if !std::mem::take(outstanding) {
            return Err(TurnError::Vhost);
        }
        Ok(Some(Filled {
            head,
            written: returned.written,
        }))
    }

    /// Asks for a call at the next buffer that vhost fills. True if there is one already: look again.
    pub(super) fn ask_for_call(&self) -> Result<bool, TurnError> {
        Ok(self.ring.ask_for_call_after(0)?)
    }

    /// The pieces of a chain that vhost has had.
    pub(super) fn pieces(&self, head: u16) -> impl Iterator<Item = Part> {
        // A driver that uses descriptors twice may have made a circle.
        Descriptors::new(self.ring.table(), head, self.outstanding.len())
            .map_while(Result::ok)
            .map(|(_, descriptor)| Part {
                address: descriptor.address,
                length: descriptor.length,
            })
    }
}

/// Whether it is one that vhost can write to, in guest memory. An empty one is not: its address is nowhere.
fn is_buffer(descriptor: &Descriptor, memory: &GuestMemory) -> bool {
    descriptor.access == Access::Write
        && descriptor.length > 0
        && is_inside(memory, descriptor.address, descriptor.length)
}
