//! The host's end of one connection: a Unix socket, and the bytes that it was too full to take.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SendFlags, Shutdown, send};
use virtio::GuestSlice;
use vsock_device::{ConnectionId, Direction};

use super::guest_io::{self, Received};
use super::poller::{Poller, StreamTag, Token};

/// A host stream. Dropping it closes the socket.
#[derive(Debug)]
pub(super) struct HostStream {
    pub(super) id: ConnectionId,
    socket: OwnedFd,
    backlog: Backlog,
    /// The client that opened the connection is owed this port with its OK, because the guest has not accepted yet.
    owed_port: Option<u32>,
    /// The peer will write no more: a short read does not mean that the next one would find nothing.
    pub(super) peer_ended: bool,
    /// Both directions are over, as far as the kernel is concerned.
    pub(super) hung_up: bool,
    /// Nothing is read from the socket any more, because it has ended or the guest does not listen.
    pub(super) reading_ended: bool,
}

/// Nobody will read what is written to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl HostStream {
    /// A stream that the guest asked for.
    pub(super) fn for_guest(id: ConnectionId, socket: OwnedFd) -> Self {
        Self {
            id,
            socket,
            backlog: Backlog::default(),
            owed_port: None,
            peer_ended: false,
            hung_up: false,
            reading_ended: false,
        }
    }

    /// A stream that a client asked for; its side of the connection has the port `host_port`.
    pub(super) fn for_client(id: ConnectionId, socket: OwnedFd, host_port: u32) -> Self {
        Self {
            owed_port: Some(host_port),
            ..Self::for_guest(id, socket)
        }
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    pub(super) fn token(&self) -> Token {
        Token::Stream(StreamTag::new(self.id))
    }

    /// Whether the guest has not accepted the connection yet.
    pub(super) fn is_pending(&self) -> bool {
        self.owed_port.is_some()
    }

    /// The guest has accepted: the client learns the port of its side.
    pub(super) fn accept(&mut self) -> Result<(), Broken> {
        let Some(port) = self.owed_port.take() else {
            return Ok(());
        };
        let line = format!("OK {port}\n");
        // Nothing was ever written to this socket, so it has room for a line.
        match send(
            &self.socket,
            line.as_bytes(),
            SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        ) {
            Ok(sent) if sent == line.len() => Ok(()),
            _ => Err(Broken),
        }
    }

    /// Gives the first `length` bytes of `payload` to the socket and keeps what it does not take. Returns what it has taken.
    pub(super) fn write(
        &mut self,
        poller: &Poller,
        payload: &[GuestSlice<'_>],
        length: usize,
    ) -> Result<usize, Broken> {
        if !self.backlog.is_empty() {
            self.backlog.append(payload, 0, length);
            return Ok(0);
        }
        let taken = self.taken(guest_io::send(self.socket.as_fd(), payload, length))?;
        if taken < length {
            self.backlog.append(payload, taken, length);
            poller
                .watch_writing(&self.socket, self.token())
                .map_err(|_| Broken)?;
        }
        Ok(taken)
    }

    /// Gives what was kept to the socket, as far as it takes it. Returns how much it has taken.
    pub(super) fn flush(&mut self, poller: &Poller) -> Result<usize, Broken> {
        if self.backlog.is_empty() {
            return Ok(0);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let taken = self.taken(send(&self.socket, self.backlog.bytes(), flags).map_err(io::Error::from))?;
        self.backlog.consume(taken);
        if self.backlog.is_empty() {
            poller.rename(&self.socket, self.token()).map_err(|_| Broken)?;
        }
        Ok(taken)
    }

    /// A full socket takes nothing; any other refusal is for good, and nothing more need be kept for it.
    fn taken(&mut self, sent: io::Result<usize>) -> Result<usize, Broken> {
        match sent {
            Ok(taken) => Ok(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(_) => {
                self.backlog = Backlog::default();
                Err(Broken)
            }
        }
    }

    /// Reads at most `limit` bytes into guest memory.
    pub(super) fn read(&self, parts: &[GuestSlice<'_>], limit: usize) -> io::Result<Received> {
        guest_io::receive(self.socket.as_fd(), parts, limit)
    }

    /// Ends one direction for the peer.
    pub(super) fn shut_down(&mut self, direction: Direction) {
        let how = match direction {
            Direction::FromHost => Shutdown::Read,
            Direction::ToHost => Shutdown::Write,
        };
        self.reading_ended |= direction == Direction::FromHost;
        // Fails only if the peer is gone, and then there is nobody to tell.
        let _ = rustix::net::shutdown(&self.socket, how);
    }
}

/// Bytes on their way to a socket that is full. The connection's receive window bounds them; memory is only taken while
/// there are any.
#[derive(Debug, Default)]
struct Backlog {
    bytes: Vec<u8>,
    /// How many of them have been sent.
    sent: usize,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Adds bytes `from` to `to` of `payload`.
    fn append(&mut self, payload: &[GuestSlice<'_>], from: usize, to: usize) {
        self.drop_sent();
        let mut skip = from;
        let mut left = to - from;
        for part in payload {
            let Ok(rest) = part.offset(skip.min(part.len())) else {
                return;
            };
            skip -= skip.min(part.len());
            let length = rest.len().min(left);
            let start = self.bytes.len();
            self.bytes.resize(start + length, 0);
            if let Some(room) = self.bytes.get_mut(start..) {
                rest.copy_to(room);
            }
            left -= length;
        }
    }

    fn consume(&mut self, length: usize) {
        self.sent += length;
        if self.sent >= self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Moves what is left to the front once that moves fewer bytes than it frees.
    fn drop_sent(&mut self) {
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio::GuestMemory;
    use vm_memory::{Bytes, GuestAddress};

    use super::super::parts::tests::slice;

    #[test]
    fn backlog_keeps_the_order_and_frees_its_memory() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        memory.write_slice(b"abcdefgh", GuestAddress(0)).unwrap();
        let part = |address, length| slice(&memory, address, length);
        let mut backlog = Backlog::default();
        let empty = part(3, 1).subslice(0, 0).unwrap();
        backlog.append(&[part(0, 3), empty, part(3, 3), part(6, 2)], 1, 7);
        assert_eq!(backlog.bytes(), b"bcdefg");
        backlog.consume(4);
        assert_eq!(backlog.bytes(), b"fg");
        backlog.append(&[part(0, 3)], 0, 2);
        assert_eq!(backlog.bytes(), b"fgab");
        backlog.consume(4);
        assert!(backlog.is_empty());
        assert_eq!(backlog.bytes.capacity(), 0);
    }
}
