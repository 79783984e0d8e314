//! The header of vsock packets (virtio 1.2, 5.10.6).

use crate::memory;

/// Its bytes.
pub(crate) const HEADER: u32 = 44;

/// Operations.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const RESET: u16 = 3;
pub(crate) const SHUTDOWN: u16 = 4;
pub(crate) const DATA: u16 = 5;
pub(crate) const CREDIT_UPDATE: u16 = 6;
pub(crate) const CREDIT_REQUEST: u16 = 7;

/// Socket type of streams.
pub(crate) const STREAM: u16 = 1;

/// A header, its fields in the order of the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) src_cid: u64,
    pub(crate) dst_cid: u64,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    pub(crate) length: u32,
    pub(crate) socket_type: u16,
    pub(crate) operation: u16,
    pub(crate) flags: u32,
    pub(crate) buffer: u32,
    pub(crate) forwarded: u32,
}

impl Header {
    /// Puts it at `address`, a multiple of four.
    pub(crate) fn write(&self, address: u64) {
        for (offset, cid) in [(0, self.src_cid), (8, self.dst_cid)] {
            memory::write(
                address + offset,
                u32::try_from(cid & 0xffff_ffff).unwrap_or_default(),
            );
            memory::write(address + offset + 4, u32::try_from(cid >> 32).unwrap_or_default());
        }
        for (offset, word) in [
            (16, self.src_port),
            (20, self.dst_port),
            (24, self.length),
            (32, self.flags),
            (36, self.buffer),
            (40, self.forwarded),
        ] {
            memory::write(address + offset, word);
        }
        memory::write(address + 28, self.socket_type);
        memory::write(address + 30, self.operation);
    }

    /// Reads the one at `address`, a multiple of four.
    pub(crate) fn read(address: u64) -> Self {
        let word = |offset| memory::read::<u32>(address + offset);
        let cid = |offset| u64::from(word(offset)) | u64::from(word(offset + 4)) << 32;
        Self {
            src_cid: cid(0),
            dst_cid: cid(8),
            src_port: word(16),
            dst_port: word(20),
            length: word(24),
            socket_type: memory::read(address + 28),
            operation: memory::read(address + 30),
            flags: word(32),
            buffer: word(36),
            forwarded: word(40),
        }
    }
}
