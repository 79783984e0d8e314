//! The packet header: `struct virtio_vsock_hdr`, 44 bytes, little endian (virtio 1.2, 5.10.6).
//!
//! ```text
//!   0        8        16       20       24    28     30   32      36          40         44
//!   ├ src_cid┼ dst_cid┼ src_port┼ dst_port┼ len ┼ type ┼ op ┼ flags ┼ buf_alloc ┼ fwd_cnt ┤
//! ```

/// Bytes in a packet header.
pub const HEADER_SIZE: usize = 44;

/// The CID by which Linux knows the machine a guest runs on (`VMADDR_CID_HOST`).
pub const HOST_CID: u64 = 2;

/// The CID by which an enclave knows its parent instance.
pub const PARENT_CID: u64 = 3;

/// Socket type of streams (`VIRTIO_VSOCK_TYPE_STREAM`), the only one there is here.
pub const SOCKET_STREAM: u16 = 1;

/// A packet header, its fields as they are on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// CID of the sender.
    pub src_cid: u64,
    /// CID of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes of payload that follow the header.
    pub len: u32,
    /// Type of the socket, [`SOCKET_STREAM`] or something we do not have.
    pub socket_type: u16,
    /// What the packet is for: see [`Operation::from_wire`].
    pub operation: u16,
    /// For SHUTDOWN: [`ShutdownFlags`].
    pub flags: u32,
    /// Bytes of buffer space the sender has for this stream.
    pub buf_alloc: u32,
    /// Bytes of this stream that the sender has taken out of its buffer so far, modulo 2³².
    pub fwd_cnt: u32,
}

/// What a packet is for (`enum virtio_vsock_op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Open a stream.
    Request = 1,
    /// The stream is open.
    Response = 2,
    /// There is no such stream, or no longer.
    Reset = 3,
    /// The sender will send or receive no more.
    Shutdown = 4,
    /// Payload.
    ReadWrite = 5,
    /// The sender's credit has changed.
    CreditUpdate = 6,
    /// The sender wants a CREDIT_UPDATE.
    CreditRequest = 7,
}

/// The flags of a SHUTDOWN packet. They add up over the life of a stream: what was said once stays said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownFlags(u32);

impl Header {
    /// Reads a header.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len: u32::from_le_bytes(field(bytes, 24)),
            socket_type: u16::from_le_bytes(field(bytes, 28)),
            operation: u16::from_le_bytes(field(bytes, 30)),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    /// Writes a header.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.socket_type.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.operation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

/// The `N` bytes from `offset`. All callers stay within the header.
fn field<const N: usize>(bytes: &[u8; HEADER_SIZE], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[offset + index])
}

impl Operation {
    /// The operation of that number, if there is one.
    pub fn from_wire(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::ReadWrite,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    /// Its number on the wire.
    pub fn to_wire(self) -> u16 {
        self as u16
    }
}

impl ShutdownFlags {
    /// Nothing is shut down.
    pub const NONE: Self = Self(0);
    /// The sender of the packet will receive no more (`VIRTIO_VSOCK_SHUTDOWN_RCV`).
    pub const RECEIVE: Self = Self(1);
    /// The sender of the packet will send no more (`VIRTIO_VSOCK_SHUTDOWN_SEND`).
    pub const SEND: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// The flags in the header of a SHUTDOWN packet; unknown bits are dropped.
    pub fn from_wire(flags: u32) -> Self {
        Self(flags & Self::BOTH.0)
    }

    /// The value for the header.
    pub fn to_wire(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of flags together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A REQUEST as a Linux guest with CID 16 sends it from port 1024 to CID 3 port 9000, byte for byte.
    #[test]
    fn known_packet() {
        let bytes: [u8; HEADER_SIZE] = [
            16, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0x28, 0x23, 0, 0, 0, 0, 0, 0, 1, 0,
            1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0,
        ];
        let header = Header::decode(&bytes);
        assert_eq!((header.src_cid, header.dst_cid), (16, PARENT_CID));
        assert_eq!((header.src_port, header.dst_port), (1024, 9000));
        assert_eq!(header.socket_type, SOCKET_STREAM);
        assert_eq!(Operation::from_wire(header.operation), Some(Operation::Request));
        assert_eq!(
            (header.len, header.flags, header.buf_alloc, header.fwd_cnt),
            (0, 0, 256 * 1024, 0)
        );
        assert_eq!(header.encode(), bytes);
    }

    proptest! {
        #[test]
        fn any_bytes_survive_decoding_and_encoding(bytes in prop::array::uniform32(any::<u8>()), rest in any::<[u8; 12]>()) {
            let mut header = [0; HEADER_SIZE];
            header[..32].copy_from_slice(&bytes);
            header[32..].copy_from_slice(&rest);
            prop_assert_eq!(Header::decode(&header).encode(), header);
        }

        #[test]
        fn operations_keep_their_numbers(number in any::<u16>()) {
            match Operation::from_wire(number) {
                Some(operation) => prop_assert_eq!(operation.to_wire(), number),
                None => prop_assert!(number == 0 || number > 7),
            }
        }
    }
}
