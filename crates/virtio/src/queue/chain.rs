//! Chains of descriptors (virtio 1.2, 2.7.5), and the pieces of guest memory that they are made of.

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use super::ring_memory::RingMemory;
use super::table::{Access, Descriptor, Unusable};
use crate::{GuestMemory, GuestSlice};

/// A chain that the driver has made available, by the index of its first descriptor. What it is made of is read when it is asked
/// for: see [`ActiveQueue::descriptors`](super::ActiveQueue::descriptors).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    pub(super) head: u16,
}

impl Chain {
    /// The index of its first descriptor, smaller than the size of the queue.
    pub fn head(self) -> u16 {
        self.head
    }
}

/// A chain that the device cannot use: a piece of it lies outside guest memory, or it has more than
/// [`ActiveQueue::MAX_PARTS`](super::ActiveQueue::MAX_PARTS) pieces, leads out of its table or into a circle, or is indirect, which
/// was not agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the descriptor chain has too many parts or leaves guest memory")]
pub struct MalformedChain;

/// The descriptors of a chain, in order. Ends after the first error, and with one where there would be more than may be.
#[derive(Debug)]
pub struct Descriptors<'q> {
    table: &'q RingMemory,
    next: Option<u16>,
    /// Descriptors that there can still be.
    left: usize,
}

impl<'q> Descriptors<'q> {
    /// Those of the chain that begins with descriptor `head` of `table`: at most so many.
    pub fn new(table: &'q RingMemory, head: u16, most: usize) -> Self {
        Self {
            table,
            next: Some(head),
            left: most,
        }
    }
}

impl Iterator for Descriptors<'_> {
    /// With the index of the descriptor.
    type Item = Result<(u16, Descriptor), MalformedChain>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next.take()?;
        if self.left == 0 {
            return Some(Err(MalformedChain));
        }
        self.left -= 1;
        Some(match Descriptor::read(self.table, index) {
            Ok(descriptor) => {
                self.next = descriptor.next;
                Ok((index, descriptor))
            }
            Err(Unusable) => Err(MalformedChain),
        })
    }
}

/// Appends the pieces of guest memory of those `descriptors` that `access` names to `parts`, in order. Returns the number of bytes
/// in them. On an error `parts` may hold some of them.
pub(super) fn append_parts<'m>(
    descriptors: Descriptors<'_>,
    access: Access,
    memory: &'m GuestMemory,
    parts: &mut Vec<GuestSlice<'m>>,
    most: usize,
) -> Result<usize, MalformedChain> {
    let limit = parts.len() + most;
    let mut bytes = 0;
    for descriptor in descriptors {
        let (_, descriptor) = descriptor?;
        if descriptor.access != access {
            continue;
        }
        let length = descriptor.length as usize;
        match slice_in_one_region(memory, descriptor.address, length) {
            Some(part) => parts.push(part),
            None => append_pieces(memory, &descriptor, parts)?,
        }
        if parts.len() > limit {
            return Err(MalformedChain);
        }
        bytes += length;
    }
    Ok(bytes)
}

/// The buffer of a descriptor that is in more than one region, if it is in guest memory at all.
fn append_pieces<'m>(
    memory: &'m GuestMemory,
    descriptor: &Descriptor,
    parts: &mut Vec<GuestSlice<'m>>,
) -> Result<(), MalformedChain> {
    for piece in GuestMemoryBackend::get_slices(memory, descriptor.address, descriptor.length as usize) {
        parts.push(piece.map_err(|_| MalformedChain)?);
    }
    Ok(())
}

/// A piece of guest memory, if it is all in one region, as nearly all are.
pub fn slice_in_one_region(
    memory: &GuestMemory,
    address: GuestAddress,
    length: usize,
) -> Option<GuestSlice<'_>> {
    let region = memory.find_region(address)?;
    let offset = address.0.checked_sub(region.start_addr().0)?;
    region.get_slice(MemoryRegionAddress(offset), length).ok()
}
