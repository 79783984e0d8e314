//! What the device waits for: one epoll instance.
//!
//! All interests are edge-triggered. A socket is registered once; from then on an event says that its state has changed, and
//! the device remembers "readable" until a read finds nothing. So nothing has to be unregistered when the guest has no buffers
//! or no credit, nothing spins meanwhile, and an eventfd need not be read. Only the interest in writing is switched on and off:
//! a Unix socket reports every read of its peer as a chance to write.

use std::io;
use std::os::fd::AsRawFd;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vsock_device::ConnectionId;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A client waits at `vsock.sock`.
    Listener,
    /// The guest has added receive buffers.
    ReceiveDoorbell,
    /// The guest has packets.
    TransmitDoorbell,
    /// A deadline has passed.
    Timer,
    /// The device has left work for its next turn.
    Again,
    /// An interrupt was put off long enough.
    PutOff,
    /// A client that has not said what it wants, by its number.
    Client(u64),
    /// The host stream of the connection with this tag.
    Stream(StreamTag),
}

/// A connection's id, without the upper bits of its generation. It only has to tell a connection from its predecessors in the
/// same slot within one batch of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamTag(u64);

/// Where the kind of a token begins in the 64 bits that epoll keeps.
const KIND_SHIFT: u32 = 56;
const VALUE_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl StreamTag {
    pub(super) fn new(id: ConnectionId) -> Self {
        Self(id.to_u64() & VALUE_MASK)
    }

    /// [`ConnectionId::slot`].
    pub(super) fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, value) = match self {
            Self::Listener => (0, 0),
            Self::ReceiveDoorbell => (1, 0),
            Self::TransmitDoorbell => (2, 0),
            Self::Timer => (3, 0),
            Self::Again => (4, 0),
            Self::PutOff => (7, 0),
            Self::Client(number) => (5, number),
            Self::Stream(tag) => (6, tag.0),
        };
        kind << KIND_SHIFT | value & VALUE_MASK
    }

    fn decode(data: u64) -> Option<Self> {
        let value = data & VALUE_MASK;
        Some(match data >> KIND_SHIFT {
            0 => Self::Listener,
            1 => Self::ReceiveDoorbell,
            2 => Self::TransmitDoorbell,
            3 => Self::Timer,
            4 => Self::Again,
            7 => Self::PutOff,
            5 => Self::Client(value),
            6 => Self::Stream(StreamTag(value)),
            _ => return None,
        })
    }
}

/// The epoll instance.
#[derive(Debug)]
pub(super) struct Poller(Epoll);

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Epoll::new().map(Self)
    }

    /// Watches `source` for something to read, its end, and errors. What is already there counts as news.
    pub(super) fn watch(&self, source: &impl AsRawFd, token: Token) -> io::Result<()> {
        self.control(ControlOperation::Add, source, token, EventSet::empty())
    }

    /// Also tells about `source` when it can be written to.
    pub(super) fn watch_writing(&self, source: &impl AsRawFd, token: Token) -> io::Result<()> {
        self.control(ControlOperation::Modify, source, token, EventSet::OUT)
    }

    /// From now on events of `source` carry `token`, and none is about writing.
    pub(super) fn rename(&self, source: &impl AsRawFd, token: Token) -> io::Result<()> {
        self.control(ControlOperation::Modify, source, token, EventSet::empty())
    }

    /// Forgets `source`. One that is closed is forgotten anyway.
    pub(super) fn forget(&self, source: &impl AsRawFd) {
        // Fails only if it is not watched.
        let _ = self.0.ctl(
            ControlOperation::Delete,
            source.as_raw_fd(),
            EpollEvent::default(),
        );
    }

    pub(super) fn epoll(&self) -> &Epoll {
        &self.0
    }

    fn control(
        &self,
        operation: ControlOperation,
        source: &impl AsRawFd,
        token: Token,
        more: EventSet,
    ) -> io::Result<()> {
        let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED | more;
        self.0.ctl(
            operation,
            source.as_raw_fd(),
            EpollEvent::new(events, token.encode()),
        )
    }
}

/// What an event is about, and what has happened.
pub(super) fn decode(event: &EpollEvent) -> Option<(Token, EventSet)> {
    Some((
        Token::decode(event.data())?,
        EventSet::from_bits_truncate(event.events()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_encoding() {
        let tokens = [
            Token::Listener,
            Token::ReceiveDoorbell,
            Token::TransmitDoorbell,
            Token::Timer,
            Token::Again,
            Token::PutOff,
            Token::Client(77),
            Token::Stream(StreamTag(0x00ab_cdef_0000_0fff)),
        ];
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
