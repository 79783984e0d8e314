//! The daemon's end of the socket to a VMM's NSM device ([`api::nsm`]).

use std::io;
use std::os::fd::OwnedFd;

use api::nsm::{MAX_REQUEST_PACKET, ResponsePacket};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A packet socket. The type is that of a stream, but nothing is asked of it that differs.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

/// What came from the VMM.
#[derive(Debug)]
pub(super) enum Heard {
    /// A packet, cut to the length of the longest that may come.
    Packet(Vec<u8>),
    /// The VMM has ended, or listens to another daemon.
    Gone,
}

impl Channel {
    /// Of a connected socket that does not block. Must be called on a Tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(UnixStream::from_std(socket.into())?))
    }

    pub(super) async fn heard(&self) -> Heard {
        let mut packet = vec![0; MAX_REQUEST_PACKET];
        let receive = || {
            let (length, _) = rustix::net::recv(&self.0, &mut packet[..], RecvFlags::empty())?;
            Ok(length)
        };
        match self.0.async_io(Interest::READABLE, receive).await {
            Ok(0) | Err(_) => Heard::Gone,
            Ok(length) => {
                packet.truncate(length);
                Heard::Packet(packet)
            }
        }
    }

    /// Whether the VMM is still there to be told.
    pub(super) async fn say(&self, number: u64, response: &[u8]) -> bool {
        let packet = ResponsePacket { number, response }.encode();
        let send = || Ok(rustix::net::send(&self.0, &packet, SendFlags::NOSIGNAL)?);
        self.0.async_io(Interest::WRITABLE, send).await.is_ok()
    }
}
