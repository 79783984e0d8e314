//! The conversation of a VMM and the daemon about the enclave's Nitro Security Module: bytes of the guest's requests to the
//! daemon, bytes of the responses back.
//!
//! ```text
//!   guest ── virtqueue ──► VMM ── number, room, request ──► daemon      answers; PCRs and keys are here
//!   guest ◄── virtqueue ── VMM ◄──── number, response ───── daemon
//! ```
//!
//! The socket is `SOCK_SEQPACKET`, one packet per message. The VMM listens, in the enclave's directory; the daemon connects,
//! and so does the one that comes after it; a connection is taken when the one before it has ended. There is at most one request at a time, and it is sent
//! again, with the same number, on each new connection until a response with its number has come. Numbers never repeat in the
//! life of a VMM, so that the daemon knows a request that it has carried out already.
//!
//! The request is what the guest wrote, uninterpreted. A guest's driver sends at most [`MAX_REQUEST`] bytes; of a longer one a
//! VMM sends one byte more than that, so that the daemon sees that it is too long.

/// The longest request that a guest may make, in bytes.
pub const MAX_REQUEST: usize = 0x1000;

/// The longest response, in bytes.
pub const MAX_RESPONSE: usize = 0x3000;

/// The longest packet from the VMM, in bytes.
pub const MAX_REQUEST_PACKET: usize = REQUEST_HEADER + MAX_REQUEST + 1;

/// The longest packet from the daemon, in bytes.
pub const MAX_RESPONSE_PACKET: usize = RESPONSE_HEADER + MAX_RESPONSE;

const REQUEST_HEADER: usize = 12;
const RESPONSE_HEADER: usize = 8;

/// A packet from the VMM: number (8 bytes), room (4 bytes), both little-endian, and the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestPacket<'a> {
    /// Which request.
    pub number: u64,
    /// How many bytes of response the guest has room for.
    pub room: u32,
    /// What the guest wrote.
    pub request: &'a [u8],
}

impl<'a> RequestPacket<'a> {
    /// The packet's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(REQUEST_HEADER + self.request.len());
        packet.extend_from_slice(&self.number.to_le_bytes());
        packet.extend_from_slice(&self.room.to_le_bytes());
        packet.extend_from_slice(self.request);
        packet
    }

    /// Reads a packet; `None` if it is too short to be one.
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (number, rest) = packet.split_first_chunk()?;
        let (room, request) = rest.split_first_chunk()?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            room: u32::from_le_bytes(*room),
            request,
        })
    }
}

/// A packet from the daemon: number (8 bytes, little-endian) and the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponsePacket<'a> {
    /// Of which request.
    pub number: u64,
    /// What the guest is to read.
    pub response: &'a [u8],
}

impl<'a> ResponsePacket<'a> {
    /// The packet's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = Vec::with_capacity(RESPONSE_HEADER + self.response.len());
        packet.extend_from_slice(&self.number.to_le_bytes());
        packet.extend_from_slice(self.response);
        packet
    }

    /// Reads a packet; `None` if it is too short to be one.
    pub fn decode(packet: &'a [u8]) -> Option<Self> {
        let (number, response) = packet.split_first_chunk()?;
        Some(Self {
            number: u64::from_le_bytes(*number),
            response,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_written() {
        let request = RequestPacket {
            number: 7,
            room: 0x3000,
            request: b"request",
        };
        assert_eq!(RequestPacket::decode(&request.encode()), Some(request));
        let response = ResponsePacket {
            number: u64::MAX,
            response: &[],
        };
        assert_eq!(ResponsePacket::decode(&response.encode()), Some(response));
        assert_eq!(response.encode(), [0xff; 8]);
    }

    #[test]
    fn what_is_too_short_is_no_packet() {
        assert_eq!(RequestPacket::decode(&[0; REQUEST_HEADER - 1]), None);
        assert_eq!(ResponsePacket::decode(&[0; RESPONSE_HEADER - 1]), None);
    }
}
