//! What the two ends of the measurements have agreed on: `vsock-bench` on the parent and `vsock-bench-guest`, process 1 of
//! the guest.
//!
//! # Conversation
//!
//! The guest listens on the ports below, then connects to [`port::CONTROL`] of its parent, whose CID is in its environment
//! ([`PARENT_CID`]). From then on everything starts at the parent, whose clock measures:
//!
//! ```text
//! round trip        parent connects to ECHO       one byte there and back, again and again
//! parent → guest    parent connects to SINK       a Transfer, then its bytes; the guest answers one byte when it has them all
//! guest → parent    parent connects to SOURCE     a Transfer; the guest sends its bytes
//! connections in    parent connects to GREETER    the guest accepts and closes; the parent sees the end and closes
//! connections out   a number on CONTROL           the guest connects so often to CALLS, one after the other, and sees the end
//!                                                 of each; then a byte back
//! ```
//!
//! A connection to SINK or SOURCE takes any number of transfers, so that the first ones can warm up.

#![forbid(unsafe_code)]

use std::io::{self, Read};

/// vsock ports.
pub mod port {
    /// Of the guest: sends back each byte.
    pub const ECHO: u32 = 7100;
    /// Of the guest: receives transfers.
    pub const SINK: u32 = 7101;
    /// Of the guest: sends transfers.
    pub const SOURCE: u32 = 7102;
    /// Of the guest: closes each connection.
    pub const GREETER: u32 = 7103;
    /// Of the parent: the guest connects when it is ready, and takes numbers of connections to make, 32 bits, little-endian.
    pub const CONTROL: u32 = 7104;
    /// Of the parent: closes each connection.
    pub const CALLS: u32 = 7105;
}

/// The environment variable of the guest's process 1, from the kernel's command line, with the CID of its parent.
pub const PARENT_CID: &str = "PARENT_CID";

/// What the guest says on the control connection when it has made the connections.
pub const MADE: u8 = b'.';

/// The size of the buffer that either end reads into, so that a write of any size that is measured fits.
pub const READ_BUFFER: usize = 64 << 10;

/// Bytes over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes in each write.
    pub write: u32,
    /// Bytes in all, a multiple of `write`.
    pub total: u64,
}

impl Transfer {
    /// Length of the form that is sent.
    pub const LENGTH: usize = 12;

    /// Both numbers, little-endian.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let (write, total) = bytes.split_at_mut(4);
        write.copy_from_slice(&self.write.to_le_bytes());
        total.copy_from_slice(&self.total.to_le_bytes());
        bytes
    }

    /// The next transfer that `stream` asks for; `None` at its end.
    ///
    /// # Errors
    /// Of the stream.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut bytes = [0; Self::LENGTH];
        match stream.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Ok(Some(Self {
            write: u32::from_le_bytes([a, b, c, d]),
            total: u64::from_le_bytes([e, f, g, h, i, j, k, l]),
        }))
    }
}

/// Sends the bytes of a transfer.
///
/// # Errors
/// Of the stream.
pub fn send(stream: &mut impl io::Write, transfer: Transfer) -> io::Result<()> {
    let piece = vec![0x5a; transfer.write as usize];
    let mut left = transfer.total;
    while left > 0 {
        stream.write_all(&piece)?;
        left = left.saturating_sub(u64::from(transfer.write.max(1)));
    }
    Ok(())
}

/// Receives the bytes of a transfer, into `buffer`.
///
/// # Errors
/// Of the stream, whose end before the last byte is one.
pub fn receive(stream: &mut impl Read, transfer: Transfer, buffer: &mut [u8]) -> io::Result<()> {
    let mut left = transfer.total;
    while left > 0 {
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match stream.read(buffer.get_mut(..room).unwrap_or_default())? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            received => left -= received as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_on_one_connection_are_read_one_after_the_other() {
        let transfers = [16_384, 65_536].map(|write| Transfer {
            write,
            total: 1 << 33,
        });
        let sent = transfers.map(Transfer::to_bytes).concat();
        let mut stream = &sent[..];
        for transfer in transfers {
            assert_eq!(Transfer::read(&mut stream).ok().flatten(), Some(transfer));
        }
        assert!(matches!(Transfer::read(&mut stream), Ok(None)));
    }

    #[test]
    fn what_is_sent_is_what_is_received_and_not_a_byte_more() {
        let transfer = Transfer {
            write: 1000,
            total: 3000,
        };
        let mut sent = Vec::new();
        send(&mut sent, transfer).expect("send");
        sent.push(1);
        let mut stream = &sent[..];
        receive(&mut stream, transfer, &mut [0; 700]).expect("receive");
        assert_eq!(stream, [1]);
        assert!(receive(&mut stream, transfer, &mut [0; 700]).is_err());
    }
}
