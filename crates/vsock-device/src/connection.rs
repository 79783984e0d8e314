//! One connection: its state, and what each packet and each host event does to it.
//!
//! ```text
//!                     REQUEST from guest                    REQUEST to guest
//!                            │                                     │
//!                            ▼                                     ▼
//!     host refused ◄──── Opening                               Requested ────► RST, or no answer in time
//!          │                 │ host connected: RESPONSE            │ RESPONSE from guest
//!          │                 └───────────────► Established ◄───────┘
//!          │                                    │       │
//!          │       host has ended both ways:    │       │  guest: RST while bytes for the host are undelivered
//!          │       SHUTDOWN(both)               ▼       ▼
//!          │                        Disconnecting     Draining
//!          ▼   no answer in time          │ RST         │ delivered
//!      Resetting ◄────────────────────────┤             │
//!          │ RST sent                     ▼             ▼
//!          └───────────────────────────► Gone ◄─────────┘
//! ```
//!
//! Any packet that breaks the protocol leads to `Resetting`, as does the end of a connection that the guest has shut down
//! both ways, once its last bytes are delivered.
//!
//! Bytes that were accepted from the guest are delivered to the host stream even if the guest resets the connection right
//! after, as a Linux host does: they lie in the receive buffer, and an RST does not empty it.
//!
//! What a connection owes the guest is a set ([`Owed`]), not a queue: however often a guest asks for credit, it is owed one
//! answer.

use std::time::Instant;

use crate::credit::{ReceiveWindow, SendWindow};
use crate::limits::Reservation;
use crate::muxer::Direction;
use crate::wire::{Header, Operation, SOCKET_STREAM, ShutdownFlags};

/// What tells connections apart. The guest's CID is the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The CID by which the guest calls its parent: 2 or 3.
    pub(crate) parent_cid: u64,
    pub(crate) parent_port: u32,
    pub(crate) guest_port: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The guest has asked; the host stream is being opened.
    Opening,
    /// The guest has been asked.
    Requested,
    Established,
    /// The host stream is gone and the guest is to answer our SHUTDOWN of both directions.
    Disconnecting,
    /// The guest is gone and the host stream takes what was accepted before.
    Draining,
    /// Both are gone; the guest is owed an RST.
    Resetting,
    /// Nothing is left to do.
    Gone,
}

/// Packets that the guest is owed, apart from data.
#[derive(Clone, Copy, Debug, Default)]
struct Owed(u8);

impl Owed {
    const REQUEST: Self = Self(1);
    const RESPONSE: Self = Self(2);
    const SHUTDOWN: Self = Self(4);
    const CREDIT_UPDATE: Self = Self(8);
    const RESET: Self = Self(16);

    fn add(&mut self, packet: Self) {
        self.0 |= packet.0;
    }

    /// Takes `packet` out; whether it was in.
    fn take(&mut self, packet: Self) -> bool {
        let was_in = self.0 & packet.0 != 0;
        self.0 &= !packet.0;
        was_in
    }
}

/// What the host side has to do after a packet or an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// The guest has accepted a connection from the host.
    Established,
    /// Payload of this length goes to the host stream.
    Write(u32),
    /// The guest has ended one direction of the host stream.
    Shutdown(Direction),
    /// The host stream is over.
    Close,
}

#[derive(Debug)]
pub(crate) struct Connection {
    key: Key,
    phase: Phase,
    owed: Owed,
    reservation: Reservation,
    send: SendWindow,
    receive: ReceiveWindow,
    guest_shutdown: ShutdownFlags,
    host_shutdown: ShutdownFlags,
    /// The guest's last byte has been delivered and the host stream told so.
    write_shut_down: bool,
    /// The host stream has bytes for the guest, or its end.
    readable: bool,
    /// When an answer that the guest owes us is overdue.
    deadline: Option<Instant>,
}

impl Connection {
    /// A connection that the guest asks for with `request`.
    pub(crate) fn from_guest(key: Key, request: &Header, reservation: Reservation) -> Self {
        let send = SendWindow::new(request.buf_alloc, request.fwd_cnt);
        Self::new(key, Phase::Opening, send, reservation)
    }

    /// A connection that the host asks for. The guest has to answer before `deadline`.
    pub(crate) fn from_host(key: Key, reservation: Reservation, deadline: Instant) -> Self {
        let mut connection = Self::new(key, Phase::Requested, SendWindow::new(0, 0), reservation);
        connection.owed.add(Owed::REQUEST);
        connection.deadline = Some(deadline);
        connection
    }

    fn new(key: Key, phase: Phase, send: SendWindow, reservation: Reservation) -> Self {
        Self {
            key,
            phase,
            owed: Owed::default(),
            receive: ReceiveWindow::new(reservation.window),
            reservation,
            send,
            guest_shutdown: ShutdownFlags::NONE,
            host_shutdown: ShutdownFlags::NONE,
            write_shut_down: false,
            readable: false,
            deadline: None,
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether packets of this key belong to this connection. A guest that has reset a connection may open it again while the
    /// bytes of the old one are still being delivered.
    pub(crate) fn owns_key(&self) -> bool {
        !matches!(self.phase, Phase::Draining | Phase::Gone)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// Whether a packet other than data is owed to the guest.
    pub(crate) fn owes_packet(&self) -> bool {
        self.owed.0 != 0
    }

    /// Bytes that may be read from the host stream and sent to the guest now.
    pub(crate) fn sendable(&self) -> u32 {
        let sending = self.phase == Phase::Established
            && self.readable
            && !self.guest_shutdown.contains(ShutdownFlags::RECEIVE)
            && !self.host_shutdown.contains(ShutdownFlags::SEND);
        if sending { self.send.available() } else { 0 }
    }

    /// A packet from the guest for this connection, with `payload` bytes behind its header.
    pub(crate) fn packet(&mut self, header: &Header, payload: u32) -> Result<Effect, ProtocolError> {
        self.send.update(header.buf_alloc, header.fwd_cnt);
        let operation = Operation::from_wire(header.operation);
        match (self.phase, operation) {
            (Phase::Draining | Phase::Gone, _) => Ok(Effect::Nothing),
            (_, Some(Operation::Reset)) => Ok(self.reset_by_guest()),
            (Phase::Resetting, _)
            | (Phase::Disconnecting, Some(Operation::ReadWrite))
            | (_, Some(Operation::CreditUpdate))
            | (Phase::Opening | Phase::Requested | Phase::Disconnecting, Some(Operation::CreditRequest)) => {
                Ok(Effect::Nothing)
            }
            (Phase::Requested, Some(Operation::Response)) => {
                self.phase = Phase::Established;
                self.deadline = None;
                Ok(Effect::Established)
            }
            (Phase::Established, Some(Operation::ReadWrite)) => self.data_from_guest(header.len, payload),
            (Phase::Established, Some(Operation::CreditRequest)) => {
                self.owed.add(Owed::CREDIT_UPDATE);
                Ok(Effect::Nothing)
            }
            (Phase::Established, Some(Operation::Shutdown)) => {
                let news = ShutdownFlags::from_wire(header.flags);
                let stops_reading = news.contains(ShutdownFlags::RECEIVE)
                    && !self.guest_shutdown.contains(ShutdownFlags::RECEIVE);
                self.guest_shutdown = self.guest_shutdown.with(news);
                Ok(match self.after_delivery() {
                    Effect::Nothing if stops_reading => Effect::Shutdown(Direction::FromHost),
                    effect => effect,
                })
            }
            (Phase::Disconnecting, Some(Operation::Shutdown)) => {
                self.guest_shutdown = self.guest_shutdown.with(ShutdownFlags::from_wire(header.flags));
                if self.guest_shutdown == ShutdownFlags::BOTH {
                    self.reset();
                }
                Ok(Effect::Nothing)
            }
            _ => Err(ProtocolError),
        }
    }

    fn data_from_guest(&mut self, length: u32, payload: u32) -> Result<Effect, ProtocolError> {
        let says_it_sends_no_more = self.guest_shutdown.contains(ShutdownFlags::SEND);
        if says_it_sends_no_more || length > payload || !self.receive.receive(length) {
            return Err(ProtocolError);
        }
        if self.host_shutdown.contains(ShutdownFlags::RECEIVE) {
            // Sent before the guest knew that nobody reads any more.
            self.consume(length);
            return Ok(Effect::Nothing);
        }
        Ok(if length == 0 {
            Effect::Nothing
        } else {
            Effect::Write(length)
        })
    }

    fn reset_by_guest(&mut self) -> Effect {
        let undelivered = self.receive.undelivered() > 0;
        match self.phase {
            Phase::Established if undelivered => {
                self.leave(Phase::Draining);
                Effect::Shutdown(Direction::FromHost)
            }
            Phase::Disconnecting | Phase::Resetting => {
                self.leave(Phase::Gone);
                Effect::Nothing
            }
            _ => {
                self.leave(Phase::Gone);
                Effect::Close
            }
        }
    }

    /// The host stream for a connection that the guest asked for is there. Whether it is still wanted.
    pub(crate) fn connected(&mut self) -> bool {
        let wanted = self.phase == Phase::Opening;
        if wanted {
            self.phase = Phase::Established;
            self.owed.add(Owed::RESPONSE);
        }
        wanted
    }

    /// Nobody on the host takes the connection that the guest asked for.
    pub(crate) fn refused(&mut self) {
        if self.phase == Phase::Opening {
            self.reset();
        }
    }

    /// The host stream has taken `length` bytes.
    pub(crate) fn delivered(&mut self, length: u32) -> Effect {
        self.consume(length);
        match self.phase {
            Phase::Established => self.after_delivery(),
            Phase::Draining if self.receive.undelivered() == 0 => {
                self.phase = Phase::Gone;
                Effect::Close
            }
            _ => Effect::Nothing,
        }
    }

    /// Whether the host stream has something to read: bytes or its end.
    pub(crate) fn set_readable(&mut self, readable: bool) {
        self.readable = readable;
    }

    /// The host stream has ended one direction, or both if the other is ended already.
    pub(crate) fn ended_by_host(&mut self, direction: Direction, deadline: Instant) -> Effect {
        match (self.phase, direction) {
            (Phase::Established, Direction::FromHost) => self.shut_down(ShutdownFlags::SEND, deadline),
            (Phase::Established, Direction::ToHost) => {
                self.consume(self.receive.undelivered());
                self.shut_down(ShutdownFlags::RECEIVE, deadline)
            }
            (Phase::Draining, Direction::ToHost) => {
                self.phase = Phase::Gone;
                Effect::Close
            }
            _ => Effect::Nothing,
        }
    }

    /// The host stream is gone altogether.
    pub(crate) fn closed_by_host(&mut self, deadline: Instant) -> Effect {
        match self.phase {
            Phase::Established => {
                self.consume(self.receive.undelivered());
                self.shut_down(ShutdownFlags::BOTH, deadline)
            }
            // The guest may not have heard of it yet, and then never will.
            Phase::Requested if self.owed.take(Owed::REQUEST) => {
                self.leave(Phase::Gone);
                Effect::Close
            }
            Phase::Requested | Phase::Opening => self.reset_with_stream(),
            Phase::Draining => {
                self.phase = Phase::Gone;
                Effect::Close
            }
            Phase::Disconnecting | Phase::Resetting | Phase::Gone => Effect::Nothing,
        }
    }

    /// The guest has not answered in time.
    pub(crate) fn expired(&mut self) -> Effect {
        match self.phase {
            Phase::Requested => self.reset_with_stream(),
            Phase::Disconnecting => {
                self.reset();
                Effect::Nothing
            }
            _ => Effect::Nothing,
        }
    }

    /// The guest has broken the protocol: it gets an RST, and the host stream, if there is one, ends.
    pub(crate) fn violated(&mut self) -> Effect {
        let has_stream = !matches!(self.phase, Phase::Disconnecting | Phase::Resetting | Phase::Gone);
        self.reset();
        if has_stream {
            Effect::Close
        } else {
            Effect::Nothing
        }
    }

    /// Makes the most urgent packet that the guest is owed. A RESPONSE goes before the SHUTDOWN of the same connection.
    pub(crate) fn next_packet(&mut self, guest_cid: u64) -> Option<Header> {
        let operation = if self.owed.take(Owed::RESET) {
            self.leave(Phase::Gone);
            Operation::Reset
        } else if self.owed.take(Owed::REQUEST) {
            Operation::Request
        } else if self.owed.take(Owed::RESPONSE) {
            Operation::Response
        } else if self.owed.take(Owed::SHUTDOWN) {
            Operation::Shutdown
        } else if self.owed.take(Owed::CREDIT_UPDATE) {
            Operation::CreditUpdate
        } else {
            return None;
        };
        Some(self.header(guest_cid, operation, 0))
    }

    /// The header of a packet with `length` bytes, at most [`sendable`](Self::sendable), read from the host stream.
    pub(crate) fn data_packet(&mut self, guest_cid: u64, length: u32) -> Header {
        self.send.send(length);
        self.header(guest_cid, Operation::ReadWrite, length)
    }

    /// Every header carries the newest credit, so it stands in for an update.
    fn header(&mut self, guest_cid: u64, operation: Operation, len: u32) -> Header {
        self.owed.take(Owed::CREDIT_UPDATE);
        let flags = if operation == Operation::Shutdown {
            self.host_shutdown
        } else {
            ShutdownFlags::NONE
        };
        Header {
            src_cid: self.key.parent_cid,
            dst_cid: guest_cid,
            src_port: self.key.parent_port,
            dst_port: self.key.guest_port,
            len,
            socket_type: SOCKET_STREAM,
            operation: operation.to_wire(),
            flags: flags.to_wire(),
            buf_alloc: self.receive.size(),
            fwd_cnt: self.receive.announce(),
        }
    }

    fn consume(&mut self, length: u32) {
        self.receive.forward(length);
        if self.phase == Phase::Established && self.receive.needs_announcement() {
            self.owed.add(Owed::CREDIT_UPDATE);
        }
    }

    /// What the guest's shutdown means now, which depends on whether all its bytes have reached the host.
    fn after_delivery(&mut self) -> Effect {
        if self.receive.undelivered() > 0 || !self.guest_shutdown.contains(ShutdownFlags::SEND) {
            return Effect::Nothing;
        }
        if self.guest_shutdown == ShutdownFlags::BOTH {
            return self.reset_with_stream();
        }
        if std::mem::replace(&mut self.write_shut_down, true) {
            return Effect::Nothing;
        }
        Effect::Shutdown(Direction::ToHost)
    }

    /// The host has ended the directions in `flags`. Once both are, the host stream is of no more use.
    fn shut_down(&mut self, flags: ShutdownFlags, deadline: Instant) -> Effect {
        let before = self.host_shutdown;
        self.host_shutdown = before.with(flags);
        if self.host_shutdown != before {
            self.owed.add(Owed::SHUTDOWN);
        }
        if self.guest_shutdown == ShutdownFlags::BOTH && self.receive.undelivered() == 0 {
            return self.reset_with_stream();
        }
        if self.host_shutdown == ShutdownFlags::BOTH {
            self.phase = Phase::Disconnecting;
            self.deadline = Some(deadline);
            return Effect::Close;
        }
        Effect::Nothing
    }

    fn reset_with_stream(&mut self) -> Effect {
        self.reset();
        Effect::Close
    }

    /// From now on the guest is owed an RST and nothing else.
    fn reset(&mut self) {
        self.leave(Phase::Resetting);
        self.owed.add(Owed::RESET);
    }

    /// Leaves the phases in which guest and device still talk.
    fn leave(&mut self, phase: Phase) {
        self.phase = phase;
        self.owed = Owed::default();
        self.deadline = None;
    }
}

/// The guest has sent a packet that the connection's state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProtocolError;
