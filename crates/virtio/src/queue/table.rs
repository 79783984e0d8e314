//! A descriptor table: what a driver writes, and a device reads (virtio 1.2, 2.7.5).

use std::sync::atomic::Ordering;

use vm_memory::GuestAddress;

use super::ring_memory::{OutsideOfRing, RingMemory};

/// Bytes of a descriptor: address (8), length (4), flags (2), next (2), all little-endian.
pub const DESCRIPTOR_SIZE: usize = 16;

/// `VRING_DESC_F_NEXT`, `_WRITE`, `_INDIRECT`, as wide as the field.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// What a device may do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The device reads it.
    Read,
    /// The device writes it.
    Write,
}

/// A descriptor, as it was when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Where its buffer is in guest memory, if it is there at all.
    pub address: GuestAddress,
    /// Bytes in the buffer.
    pub length: u32,
    /// What the device may do with the buffer.
    pub access: Access,
    /// The next one of the chain.
    pub next: Option<u16>,
}

/// A descriptor that refers to a table of others, which was not agreed on, or one outside of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable;

impl Descriptor {
    /// Reads the descriptor with this index. Each half is read at once: a driver may change it meanwhile, but what is checked is
    /// what is used.
    pub(super) fn read(table: &RingMemory, index: u16) -> Result<Self, Unusable> {
        let offset = DESCRIPTOR_SIZE * usize::from(index);
        let half = |offset| {
            table
                .load::<u64>(offset, Ordering::Relaxed)
                .map_err(|OutsideOfRing| Unusable)
        };
        let address = u64::from_le(half(offset)?);
        let [l0, l1, l2, l3, flags @ .., n0, n1] = u64::from_le(half(offset + 8)?).to_le_bytes();
        let flags = u16::from_le_bytes(flags);
        if flags & INDIRECT != 0 {
            return Err(Unusable);
        }
        Ok(Self {
            address: GuestAddress(address),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            access: if flags & WRITE == 0 {
                Access::Read
            } else {
                Access::Write
            },
            next: (flags & NEXT != 0).then_some(u16::from_le_bytes([n0, n1])),
        })
    }

    /// Writes it to the place with this index.
    ///
    /// # Errors
    /// If there is no such place.
    pub fn write(&self, table: &RingMemory, index: u16) -> Result<(), OutsideOfRing> {
        let mut flags = 0;
        if self.access == Access::Write {
            flags |= WRITE;
        }
        if self.next.is_some() {
            flags |= NEXT;
        }
        let second =
            u64::from(self.length) | u64::from(flags) << 32 | u64::from(self.next.unwrap_or(0)) << 48;
        let offset = DESCRIPTOR_SIZE * usize::from(index);
        table.store(offset, self.address.0.to_le(), Ordering::Relaxed)?;
        table.store(offset + 8, second.to_le(), Ordering::Relaxed)
    }
}
