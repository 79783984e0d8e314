//! Pieces of guest memory, each checked to be in it.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use virtio::{Access, ActiveQueue, Chain, GuestMemory, MalformedChain, slice_in_one_region};
use vsock_device::HEADER_SIZE;

/// [`HEADER_SIZE`], as descriptors count.
pub(super) const HEADER_BYTES: u32 = 44;
const _: () = assert!(HEADER_BYTES as usize == HEADER_SIZE);

/// A piece of memory, as vhost is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) address: GuestAddress,
    pub(super) length: u32,
}

/// Whether all of it is guest memory. `length` is not zero.
pub(super) fn is_inside(memory: &GuestMemory, address: GuestAddress, length: u32) -> bool {
    let length = length as usize;
    slice_in_one_region(memory, address, length).is_some()
        || GuestMemoryBackend::check_range(memory, address, length)
}

/// A packet of the guest: its header, and where all that follows is. Kept from packet to packet, for its memory.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) header: [u8; HEADER_SIZE],
    pub(super) payload: Vec<Part>,
}

impl Default for Packet {
    fn default() -> Self {
        Self {
            header: [0; HEADER_SIZE],
            payload: Vec::new(),
        }
    }
}

impl Packet {
    /// Takes what the guest wants read of `chain`. The header is read once: what is checked is what is sent, whatever the guest
    /// writes meanwhile.
    ///
    /// # Errors
    /// [`MalformedChain`] if a piece is not in guest memory, there are too many, or they are shorter than a header.
    pub(super) fn take(
        &mut self,
        queue: &ActiveQueue,
        chain: Chain,
        memory: &GuestMemory,
    ) -> Result<(), MalformedChain> {
        self.payload.clear();
        let mut rest = &mut self.header[..];
        for descriptor in queue.descriptors(chain) {
            let (_, descriptor) = descriptor?;
            let (address, length) = (descriptor.address, descriptor.length);
            if descriptor.access == Access::Write || length == 0 {
                continue;
            }
            if !is_inside(memory, address, length) {
                return Err(MalformedChain);
            }
            let of_header = rest.len().min(length as usize);
            if of_header > 0 {
                let (piece, more) = rest.split_at_mut(of_header);
                read(memory, address, piece).ok_or(MalformedChain)?;
                rest = more;
            }
            // Not longer than a header.
            let of_header = u32::try_from(of_header).unwrap_or(HEADER_BYTES);
            if length > of_header {
                self.payload.push(Part {
                    address: GuestAddress(address.0 + u64::from(of_header)),
                    length: length - of_header,
                });
            }
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(MalformedChain)
        }
    }
}

fn read(memory: &GuestMemory, address: GuestAddress, bytes: &mut [u8]) -> Option<()> {
    if let Some(slice) = slice_in_one_region(memory, address, bytes.len()) {
        slice.copy_to(bytes);
        return Some(());
    }
    memory.read_slice(bytes, address).ok()
}

/// The bytes of a header that is in `pieces`, as far as they go.
pub(super) fn read_header(memory: &GuestMemory, pieces: impl Iterator<Item = Part>) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    let mut rest = &mut bytes[..];
    for piece in pieces {
        let (here, more) = rest.split_at_mut(rest.len().min(piece.length as usize));
        if here.is_empty() || read(memory, piece.address, here).is_none() {
            // A whole header, or none.
            break;
        }
        rest = more;
    }
    bytes
}

/// Writes `bytes` to the start of `pieces`, as far as they go.
pub(super) fn write_front(
    memory: &GuestMemory,
    pieces: impl Iterator<Item = Part>,
    bytes: &[u8],
) -> Option<()> {
    let mut rest = bytes;
    for piece in pieces {
        let (here, more) = rest.split_at(rest.len().min(piece.length as usize));
        match slice_in_one_region(memory, piece.address, here.len()) {
            Some(slice) => slice.copy_from(here),
            None => memory.write_slice(here, piece.address).ok()?,
        }
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    Some(())
}
