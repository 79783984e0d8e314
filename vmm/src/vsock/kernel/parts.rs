//! Chains of the guest as pieces of guest memory, each checked to be in it.

use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use virtio::{Access, ActiveQueue, Chain, GuestMemory, MalformedChain};
use vsock_device::HEADER_SIZE;

/// [`HEADER_SIZE`], as descriptors count.
pub(super) const HEADER_BYTES: u32 = 44;
const _: () = assert!(HEADER_BYTES as usize == HEADER_SIZE);

/// A piece of guest memory, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) address: GuestAddress,
    pub(super) length: u32,
}

/// One packet or one buffer of the guest: where its header is, and all that follows. Kept from chain to chain, for its memory.
#[derive(Debug, Default)]
pub(super) struct Packet {
    pub(super) header: Vec<Part>,
    pub(super) payload: Vec<Part>,
}

impl Packet {
    /// Takes the pieces of `chain` that `access` names.
    ///
    /// # Errors
    /// [`MalformedChain`] if a piece is not in guest memory, there are too many, or there is no room for a header.
    pub(super) fn take(
        &mut self,
        chain: Chain<'_>,
        access: Access,
        memory: &GuestMemory,
    ) -> Result<(), MalformedChain> {
        self.header.clear();
        self.payload.clear();
        let (wanted, permissions) = match access {
            Access::Read => (false, Permissions::Read),
            Access::Write => (true, Permissions::Write),
        };
        let mut header_left = HEADER_BYTES;
        for (index, descriptor) in chain.enumerate() {
            // Every descriptor counts, also those of the other direction: a chain of 65535 of them is not walked.
            if index >= ActiveQueue::MAX_PARTS {
                return Err(MalformedChain);
            }
            if descriptor.is_write_only() != wanted || descriptor.len() == 0 {
                continue;
            }
            let (address, length) = (descriptor.addr(), descriptor.len());
            if !memory.check_range(address, length as usize, permissions) {
                return Err(MalformedChain);
            }
            let of_header = length.min(header_left);
            if of_header > 0 {
                self.header.push(Part {
                    address,
                    length: of_header,
                });
                header_left -= of_header;
            }
            if length > of_header {
                self.payload.push(Part {
                    address: GuestAddress(address.0 + u64::from(of_header)),
                    length: length - of_header,
                });
            }
        }
        if header_left > 0 {
            return Err(MalformedChain);
        }
        Ok(())
    }
}

/// The bytes of a header in guest memory.
pub(super) fn read_header(header: &[Part], memory: &GuestMemory) -> Option<[u8; HEADER_SIZE]> {
    let mut bytes = [0; HEADER_SIZE];
    let mut rest = &mut bytes[..];
    for part in header {
        let (piece, more) = rest.split_at_mut_checked(part.length as usize)?;
        memory.read_slice(piece, part.address).ok()?;
        rest = more;
    }
    rest.is_empty().then_some(bytes)
}

/// Puts a header into guest memory, as far as there is place for it.
pub(super) fn write_header(bytes: &[u8; HEADER_SIZE], header: &[Part], memory: &GuestMemory) -> Option<()> {
    let mut rest = &bytes[..];
    for part in header {
        let (piece, more) = rest.split_at_checked(part.length as usize)?;
        memory.write_slice(piece, part.address).ok()?;
        rest = more;
    }
    Some(())
}
