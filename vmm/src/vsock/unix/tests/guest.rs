//! The vsock half of a guest: sockets, credit, and the answers that Linux gives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use vsock_device::{Header, Operation, PARENT_CID, SOCKET_STREAM, ShutdownFlags};

use super::Driver;
use super::GUEST_CID;
use crate::vsock::driver::HEADER_THEN_DATA;

const BUFFER: u32 = 256 << 10;
/// A test that has not come to its end after this long never will.
const GIVE_UP_AFTER: Duration = Duration::from_mins(2);

/// Port of the guest, port of the parent.
pub(super) type Ports = (u32, u32);

pub(super) struct Guest {
    pub(super) driver: Driver,
    pub(super) sockets: BTreeMap<Ports, Socket>,
    /// Ports of the guest that accept connections.
    pub(super) listening: BTreeSet<u32>,
    /// How packets are cut into descriptors.
    pub(super) cuts: &'static [u32],
    pub(super) parent_cid: u64,
    /// Offer the buffers of received packets again.
    pub(super) refill: bool,
    waiting: VecDeque<(Header, Vec<u8>)>,
    pub(super) largest_packet: usize,
}

#[derive(Default)]
pub(super) struct Socket {
    pub(super) established: bool,
    /// The guest knows nothing of the connection any more.
    pub(super) closed: bool,
    /// Written by the application and not yet sent.
    pub(super) unsent: VecDeque<u8>,
    /// Received and not yet read by the application.
    pub(super) received: VecDeque<u8>,
    pub(super) peer_shutdown: ShutdownFlags,
    shutdown: ShutdownFlags,
    pub(super) sent: u32,
    consumed: u32,
    announced: u32,
    arrived: u32,
    peer_buffer: u32,
    peer_consumed: u32,
}

impl Guest {
    /// A guest whose driver is ready, with all the receive buffers there can be.
    pub(super) fn new(directory: &Path) -> Self {
        Self::with_driver(super::driver(directory))
    }

    pub(super) fn with_driver(driver: Driver) -> Self {
        let mut guest = Self {
            driver,
            sockets: BTreeMap::new(),
            listening: BTreeSet::new(),
            cuts: HEADER_THEN_DATA,
            parent_cid: PARENT_CID,
            refill: true,
            waiting: VecDeque::new(),
            largest_packet: 64 << 10,
        };
        guest.boot();
        guest
    }

    /// The driver initialises the device, as after a reset.
    pub(super) fn boot(&mut self) {
        self.driver.initialise();
        self.sockets.clear();
        self.waiting.clear();
        let buffers = self.driver.buffers();
        self.driver.offer_buffers(0..buffers);
    }

    pub(super) fn connect(&mut self, ports: Ports) {
        self.sockets.insert(ports, Socket::default());
        self.send(ports, Operation::Request, ShutdownFlags::NONE, &[]);
    }

    pub(super) fn write(&mut self, ports: Ports, bytes: &[u8]) {
        self.socket(ports).unsent.extend(bytes);
    }

    /// The application reads everything there is.
    pub(super) fn read(&mut self, ports: Ports) -> Vec<u8> {
        let socket = self.socket(ports);
        let bytes: Vec<_> = socket.received.drain(..).collect();
        socket.consumed = socket.consumed.wrapping_add(u32::try_from(bytes.len()).unwrap());
        let seen = BUFFER - socket.arrived.wrapping_sub(socket.announced);
        if !socket.closed && socket.consumed != socket.announced && seen < 64 << 10 {
            self.send(ports, Operation::CreditUpdate, ShutdownFlags::NONE, &[]);
        }
        bytes
    }

    pub(super) fn shut_down(&mut self, ports: Ports, flags: ShutdownFlags) {
        let socket = self.socket(ports);
        assert!(socket.unsent.is_empty(), "the application's data is sent first");
        socket.shutdown = socket.shutdown.with(flags);
        let flags = socket.shutdown;
        self.send(ports, Operation::Shutdown, flags, &[]);
    }

    pub(super) fn reset(&mut self, ports: Ports) {
        self.socket(ports).closed = true;
        self.send(ports, Operation::Reset, ShutdownFlags::NONE, &[]);
    }

    pub(super) fn socket(&mut self, ports: Ports) -> &mut Socket {
        self.sockets.get_mut(&ports).unwrap()
    }

    /// Whether the peer has ended its direction, or the whole connection.
    pub(super) fn at_end(&self, ports: Ports) -> bool {
        self.sockets
            .get(&ports)
            .is_some_and(|socket| socket.closed || socket.peer_shutdown.contains(ShutdownFlags::SEND))
    }

    /// Runs guest and device until `done`.
    pub(super) fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < GIVE_UP_AFTER, "waited too long until {what}");
            self.step(1);
        }
    }

    /// Runs guest and device until neither has anything to do.
    pub(super) fn settle(&mut self) {
        while self.step(20) {}
    }

    /// One turn of the device, and all the guest can do by itself. Whether anything happened.
    pub(super) fn step(&mut self, milliseconds: i32) -> bool {
        let mut busy = self.driver.turn(milliseconds) > 0;
        while let Some((header, payload)) = self.driver.receive(self.refill) {
            busy = true;
            self.handle(&header, &payload);
        }
        let ports: Vec<_> = self.sockets.keys().copied().collect();
        for ports in ports {
            busy |= self.send_data(ports);
        }
        while let Some((header, payload)) = self.waiting.pop_front() {
            if !self.driver.transmit(&header, &payload, self.cuts) {
                self.waiting.push_front((header, payload));
                break;
            }
            busy = true;
        }
        busy
    }

    /// Sends as much as credit and the queue allow: at most a packet, so that sockets take turns.
    fn send_data(&mut self, ports: Ports) -> bool {
        if !self.waiting.is_empty() {
            return false;
        }
        let largest = self.largest_packet;
        let socket = self.socket(ports);
        if !socket.established || socket.closed {
            return false;
        }
        let under_way = socket.sent.wrapping_sub(socket.peer_consumed);
        let credit = socket.peer_buffer.saturating_sub(under_way) as usize;
        let length = socket.unsent.len().min(credit).min(largest);
        if length == 0 {
            return false;
        }
        let payload: Vec<_> = socket.unsent.drain(..length).collect();
        socket.sent = socket.sent.wrapping_add(u32::try_from(length).unwrap());
        self.send(ports, Operation::ReadWrite, ShutdownFlags::NONE, &payload);
        true
    }

    fn handle(&mut self, header: &Header, payload: &[u8]) {
        assert_eq!(header.dst_cid, u64::from(GUEST_CID));
        assert_eq!(header.src_cid, self.parent_cid);
        let ports = (header.dst_port, header.src_port);
        let operation = Operation::from_wire(header.operation).unwrap();
        if operation == Operation::Request {
            self.handle_request(ports, header);
            return;
        }
        let Some(socket) = self.sockets.get_mut(&ports).filter(|socket| !socket.closed) else {
            return;
        };
        socket.peer_buffer = header.buf_alloc;
        socket.peer_consumed = header.fwd_cnt;
        match operation {
            Operation::Response => socket.established = true,
            Operation::Reset => socket.closed = true,
            Operation::ReadWrite => {
                socket.received.extend(payload);
                socket.arrived = socket.arrived.wrapping_add(header.len);
                assert!(
                    socket.arrived.wrapping_sub(socket.announced) <= BUFFER,
                    "the device overran the guest's credit"
                );
            }
            Operation::Shutdown => {
                socket.peer_shutdown = socket.peer_shutdown.with(ShutdownFlags::from_wire(header.flags));
                if socket.peer_shutdown == ShutdownFlags::BOTH && socket.received.is_empty() {
                    self.reset(ports);
                }
            }
            Operation::CreditRequest => self.send(ports, Operation::CreditUpdate, ShutdownFlags::NONE, &[]),
            Operation::CreditUpdate | Operation::Request => {}
        }
    }

    fn handle_request(&mut self, ports: Ports, header: &Header) {
        let socket = Socket {
            established: true,
            peer_buffer: header.buf_alloc,
            peer_consumed: header.fwd_cnt,
            ..Socket::default()
        };
        self.sockets.insert(ports, socket);
        if self.listening.contains(&ports.0) {
            self.send(ports, Operation::Response, ShutdownFlags::NONE, &[]);
        } else {
            self.reset(ports);
        }
    }

    pub(super) fn send(&mut self, ports: Ports, operation: Operation, flags: ShutdownFlags, payload: &[u8]) {
        let parent_cid = self.parent_cid;
        let socket = self.socket(ports);
        socket.announced = socket.consumed;
        let header = Header {
            src_cid: u64::from(GUEST_CID),
            dst_cid: parent_cid,
            src_port: ports.0,
            dst_port: ports.1,
            len: u32::try_from(payload.len()).unwrap(),
            socket_type: SOCKET_STREAM,
            operation: operation.to_wire(),
            flags: flags.to_wire(),
            buf_alloc: BUFFER,
            fwd_cnt: socket.consumed,
        };
        self.waiting.push_back((header, payload.to_vec()));
    }
}
