//! All connections of one guest, and whose turn it is.
//!
//! Connections wait in three lists: those that owe the guest a packet, those that have data and credit, and those that the
//! guest owes an answer. After everything that happens to a connection, [`Muxer::settle`] puts it into the lists where its
//! state says it belongs; nothing else touches them. Data is sent round robin, one turn for each connection.

use std::collections::VecDeque;
use std::time::Instant;

use crate::connection::{Connection, Effect, Key};
use crate::limits::{Limits, WindowPool};
use crate::list::SlotList;
use crate::table::{ConnectionId, Table};
use crate::wire::{HOST_CID, Header, Operation, PARENT_CID, SOCKET_STREAM};

/// Ports of the parent for connections that it opens: this and above, where nobody listens by convention.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// Above it is only VMADDR_PORT_ANY, which is no port.
const LAST_HOST_PORT: u32 = u32::MAX - 1;

/// One direction of a host stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Bytes that the host stream gives to the guest.
    FromHost,
    /// Bytes that the guest gives to the host stream.
    ToHost,
}

/// What the owner of the host streams has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the guest's packet has consequences for a host stream"]
pub enum Action {
    /// Nothing.
    None,
    /// Open a host stream to `port`, then call [`Muxer::connected`] or [`Muxer::refused`].
    Connect {
        /// The new connection.
        id: ConnectionId,
        /// The port that the guest wants.
        port: u32,
    },
    /// The guest has accepted a connection that the host opened.
    Established {
        /// The connection.
        id: ConnectionId,
    },
    /// Write the first `length` bytes of the packet's payload to the host stream, or keep those that it does not take at
    /// once. [`Muxer::delivered`] for each byte that it has taken.
    Write {
        /// The connection.
        id: ConnectionId,
        /// Bytes, at least one, never more than the payload has and never more than the connection's window.
        length: u32,
    },
    /// End one direction of the host stream: all bytes of the guest are delivered and there will be no more (`ToHost`), or
    /// the guest reads no more (`FromHost`).
    Shutdown {
        /// The connection.
        id: ConnectionId,
        /// The direction to end.
        direction: Direction,
    },
    /// Close the host stream, with what is buffered for it. The id names nothing any more.
    Close {
        /// The connection.
        id: ConnectionId,
    },
}

/// A packet for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A packet that is a header alone.
    Packet(Header),
    /// It is this connection's turn: read from its host stream, at most `limit` bytes, and ask [`Muxer::data_packet`] for the
    /// header of each packet made of them; or tell what the stream did instead ([`Muxer::readable`], [`Muxer::ended_by_host`]).
    Data {
        /// The connection.
        id: ConnectionId,
        /// What the guest's credit allows, at least one.
        limit: u32,
    },
}

/// The connections of one guest.
#[derive(Debug)]
pub struct Muxer {
    guest_cid: u64,
    limits: Limits,
    windows: WindowPool,
    table: Table,
    /// Connections that owe the guest a packet.
    owing: SlotList,
    /// Connections that have data and credit.
    sending: SlotList,
    /// Connections that wait for the guest's answer, the most urgent first: all wait equally long.
    waiting: SlotList,
    /// Answers to packets of no connection.
    stray_resets: VecDeque<Header>,
    next_host_port: u32,
    faults: u64,
}

impl Muxer {
    /// No connections yet, for the guest with CID `guest_cid`.
    pub fn new(guest_cid: u32, limits: Limits) -> Self {
        Self {
            guest_cid: u64::from(guest_cid),
            windows: WindowPool::new(&limits),
            table: Table::new(limits.connections),
            limits,
            owing: SlotList::default(),
            sending: SlotList::default(),
            waiting: SlotList::default(),
            stray_resets: VecDeque::new(),
            next_host_port: FIRST_HOST_PORT,
            faults: 0,
        }
    }

    /// Living connections.
    pub fn connections(&self) -> usize {
        self.table.len()
    }

    /// Whether no connection can be opened before one ends.
    pub fn is_full(&self) -> bool {
        self.table.is_full()
    }

    /// Packets so far by which the guest broke the protocol. A sound driver never does.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// A packet from the guest: its header, and how many bytes of payload are there behind it.
    pub fn guest_packet(&mut self, header: &Header, payload: u32) -> Action {
        if header.src_cid != self.guest_cid {
            self.faults += 1;
            return Action::None;
        }
        let for_parent = matches!(header.dst_cid, HOST_CID | PARENT_CID);
        if !for_parent || header.socket_type != SOCKET_STREAM {
            self.answer_stray(header);
            return Action::None;
        }
        let key = Key {
            parent_cid: header.dst_cid,
            parent_port: header.dst_port,
            guest_port: header.src_port,
        };
        let Some(id) = self.table.find(&key) else {
            return self.packet_without_connection(key, header);
        };
        let Some(connection) = self.table.get_mut(id) else {
            return Action::None;
        };
        let effect = connection.packet(header, payload).unwrap_or_else(|_| {
            self.faults += 1;
            connection.violated()
        });
        self.settle(id, effect)
    }

    fn packet_without_connection(&mut self, key: Key, header: &Header) -> Action {
        if Operation::from_wire(header.operation) != Some(Operation::Request) || self.table.is_full() {
            self.answer_stray(header);
            return Action::None;
        }
        let connection = Connection::from_guest(key, header, self.windows.reserve());
        match self.table.insert(connection) {
            Some(id) => Action::Connect {
                id,
                port: key.parent_port,
            },
            None => Action::None,
        }
    }

    /// An RST goes back to where the packet came from, unless it was one. If the guest sends more such packets than it takes
    /// answers, the rest are not answered.
    fn answer_stray(&mut self, header: &Header) {
        let is_reset = Operation::from_wire(header.operation) == Some(Operation::Reset);
        if is_reset || self.stray_resets.len() >= self.limits.stray_resets {
            return;
        }
        self.stray_resets.push_back(Header {
            src_cid: header.dst_cid,
            dst_cid: header.src_cid,
            src_port: header.dst_port,
            dst_port: header.src_port,
            len: 0,
            socket_type: header.socket_type,
            operation: Operation::Reset.to_wire(),
            flags: 0,
            buf_alloc: 0,
            fwd_cnt: 0,
        });
    }

    /// The host opens a connection to `guest_port`. Returns it with the port that it has on the host's side, or nothing if
    /// there are too many connections. [`Action::Established`] follows, or [`Action::Close`].
    pub fn open(&mut self, guest_port: u32, now: Instant) -> Option<(ConnectionId, u32)> {
        if self.table.is_full() {
            return None;
        }
        let key = self.unused_key(guest_port);
        let connection = Connection::from_host(key, self.windows.reserve(), now + self.limits.answer_within);
        let id = self.table.insert(connection)?;
        let _ = self.settle(id, Effect::Nothing);
        Some((id, key.parent_port))
    }

    /// Ends because there are more ports than connections.
    fn unused_key(&mut self, guest_port: u32) -> Key {
        loop {
            let key = Key {
                parent_cid: PARENT_CID,
                parent_port: self.next_host_port,
                guest_port,
            };
            self.next_host_port = if self.next_host_port >= LAST_HOST_PORT {
                FIRST_HOST_PORT
            } else {
                self.next_host_port + 1
            };
            if self.table.find(&key).is_none() {
                return key;
            }
        }
    }

    /// The host stream that [`Action::Connect`] asked for is open. False if the guest has given the connection up meanwhile:
    /// the stream is to be closed.
    #[must_use = "a stream that nobody wants is to be closed"]
    pub fn connected(&mut self, id: ConnectionId) -> bool {
        let mut wanted = false;
        let _ = self.change(id, |connection| {
            wanted = connection.connected();
            Effect::Nothing
        });
        wanted
    }

    /// The host stream that [`Action::Connect`] asked for cannot be had.
    pub fn refused(&mut self, id: ConnectionId) {
        let _ = self.change(id, |connection| {
            connection.refused();
            Effect::Nothing
        });
    }

    /// The host stream has taken `length` bytes of what [`Action::Write`] gave it.
    pub fn delivered(&mut self, id: ConnectionId, length: u32) -> Action {
        self.change(id, |connection| connection.delivered(length))
    }

    /// Whether the host stream has something to read: bytes, or its end.
    pub fn readable(&mut self, id: ConnectionId, readable: bool) {
        let _ = self.change(id, |connection| {
            connection.set_readable(readable);
            Effect::Nothing
        });
    }

    /// The host stream has ended one direction: there is nothing more to read, or it takes no more. What is buffered for a
    /// stream that takes no more is to be dropped.
    pub fn ended_by_host(&mut self, id: ConnectionId, direction: Direction, now: Instant) -> Action {
        let deadline = now + self.limits.answer_within;
        self.change(id, |connection| connection.ended_by_host(direction, deadline))
    }

    /// The host stream has failed or was closed. What is buffered for it is to be dropped.
    pub fn closed_by_host(&mut self, id: ConnectionId, now: Instant) -> Action {
        let deadline = now + self.limits.answer_within;
        self.change(id, |connection| connection.closed_by_host(deadline))
    }

    /// When [`expire`](Self::expire) is to be called, if ever.
    pub fn next_deadline(&self) -> Option<Instant> {
        let id = self.table.id(self.waiting.front()?)?;
        self.table.get(id)?.deadline()
    }

    /// Ends one connection whose guest has not answered by `now`. Call it until it returns nothing.
    pub fn expire(&mut self, now: Instant) -> Option<Action> {
        self.next_deadline().filter(|deadline| *deadline <= now)?;
        let id = self.table.id(self.waiting.front()?)?;
        Some(self.change(id, Connection::expired))
    }

    /// Whether there is something for the guest.
    pub fn has_outgoing(&self) -> bool {
        !self.owing.is_empty() || !self.stray_resets.is_empty() || !self.sending.is_empty()
    }

    /// What goes into the guest's next receive buffer. A packet returned here is sent; a [`Outgoing::Data`] turn has passed to
    /// the next connection.
    pub fn next_outgoing(&mut self) -> Option<Outgoing> {
        if let Some(id) = self.owing.front().and_then(|slot| self.table.id(slot)) {
            self.owing.rotate();
            let header = self.table.get_mut(id)?.next_packet(self.guest_cid)?;
            let _ = self.settle(id, Effect::Nothing);
            return Some(Outgoing::Packet(header));
        }
        if let Some(header) = self.stray_resets.pop_front() {
            return Some(Outgoing::Packet(header));
        }
        let id = self.sending.front().and_then(|slot| self.table.id(slot))?;
        self.sending.rotate();
        let limit = self.table.get(id)?.sendable();
        Some(Outgoing::Data { id, limit })
    }

    /// The header of a packet with `length` bytes that were read from the host stream; together at most the limit of the
    /// turn. Nothing if `id` names no connection.
    pub fn data_packet(&mut self, id: ConnectionId, length: u32) -> Option<Header> {
        let header = self.table.get_mut(id)?.data_packet(self.guest_cid, length);
        let _ = self.settle(id, Effect::Nothing);
        Some(header)
    }

    fn change(&mut self, id: ConnectionId, change: impl FnOnce(&mut Connection) -> Effect) -> Action {
        let Some(connection) = self.table.get_mut(id) else {
            return Action::None;
        };
        let effect = change(connection);
        self.settle(id, effect)
    }

    /// Puts the connection into the lists where it belongs, or out of the table if it is gone.
    fn settle(&mut self, id: ConnectionId, effect: Effect) -> Action {
        if let Some(connection) = self.table.get(id) {
            let slot = id.slot();
            keep_in(&mut self.owing, slot, connection.owes_packet());
            keep_in(&mut self.sending, slot, connection.sendable() > 0);
            keep_in(&mut self.waiting, slot, connection.deadline().is_some());
            if connection.is_gone() {
                if let Some(connection) = self.table.remove(id) {
                    self.windows.release(connection.reservation());
                }
            } else if !connection.owns_key() {
                self.table.release_key(id);
            }
        }
        match effect {
            Effect::Nothing => Action::None,
            Effect::Established => Action::Established { id },
            Effect::Write(length) => Action::Write { id, length },
            Effect::Shutdown(direction) => Action::Shutdown { id, direction },
            Effect::Close => Action::Close { id },
        }
    }
}

fn keep_in(list: &mut SlotList, slot: u32, belongs: bool) {
    if belongs {
        list.push_back(slot);
    } else {
        list.remove(slot);
    }
}
