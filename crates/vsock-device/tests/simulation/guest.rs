//! The guest's side, after Linux's net/vmw_vsock/virtio_transport_common.c: credit, half-close, and when it answers with RST.

use std::collections::{BTreeMap, VecDeque};

use vsock_device::{Header, Operation, PARENT_CID, SOCKET_STREAM, ShutdownFlags};

use crate::{GUEST_CID, pattern};

/// The receive buffer that the guest promises, and the free space below which it announces that it has more again.
const BUFFER: u32 = 1000;
const LITTLE_SPACE: u32 = 400;
const LARGEST_PACKET: u32 = 300;

/// A packet on the transmit queue.
pub(crate) struct Packet {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Guest {
    pub(crate) transmit: VecDeque<Packet>,
    pub(crate) streams: BTreeMap<u32, Stream>,
}

/// One socket of the guest, by its port. Every port of the guest is used once.
pub(crate) struct Stream {
    parent_port: u32,
    pub(crate) open: bool,
    connecting: bool,
    /// Bytes written by the application, which are also the counter of what was sent, and bytes read by it.
    pub(crate) sent: u32,
    pub(crate) read: u32,
    received: u32,
    announced: u32,
    peer_buffer: u32,
    peer_consumed: u32,
    shutdown: ShutdownFlags,
    peer_shutdown: ShutdownFlags,
}

impl Guest {
    pub(crate) fn connect(&mut self, port: u32, parent_port: u32) {
        self.streams.insert(port, Stream::new(parent_port, true));
        self.send(port, Operation::Request, ShutdownFlags::NONE, Vec::new());
    }

    /// The application writes up to `length` bytes: one packet, as far as the device's credit goes.
    pub(crate) fn write(&mut self, port: u32, length: u32) {
        let Some(stream) = self.streams.get_mut(&port) else {
            return;
        };
        if !stream.open || stream.connecting || stream.shutdown.contains(ShutdownFlags::SEND) {
            return;
        }
        let credit = stream
            .peer_buffer
            .saturating_sub(stream.sent.wrapping_sub(stream.peer_consumed));
        let length = length.min(credit).min(LARGEST_PACKET);
        if length == 0 || stream.peer_shutdown.contains(ShutdownFlags::RECEIVE) {
            return;
        }
        let payload = (stream.sent..stream.sent + length)
            .map(|at| pattern(port, at))
            .collect();
        stream.sent += length;
        self.send(port, Operation::ReadWrite, ShutdownFlags::NONE, payload);
    }

    pub(crate) fn read(&mut self, port: u32, length: u32) {
        let Some(stream) = self.streams.get_mut(&port) else {
            return;
        };
        stream.read += length.min(stream.received - stream.read);
        let seen = BUFFER - (stream.received - stream.announced);
        if stream.open && !stream.connecting && stream.read != stream.announced && seen < LITTLE_SPACE {
            self.send(port, Operation::CreditUpdate, ShutdownFlags::NONE, Vec::new());
        }
    }

    pub(crate) fn shut_down_write(&mut self, port: u32) {
        self.shut_down(port, ShutdownFlags::SEND);
    }

    /// The application closes its socket.
    pub(crate) fn close(&mut self, port: u32) {
        let Some(stream) = self.streams.get_mut(&port) else {
            return;
        };
        if !stream.open || stream.connecting {
            return;
        }
        if stream.shutdown.with(stream.peer_shutdown) == ShutdownFlags::BOTH {
            self.reset(port);
        } else {
            self.shut_down(port, ShutdownFlags::BOTH);
        }
    }

    pub(crate) fn reset(&mut self, port: u32) {
        let Some(stream) = self.streams.get_mut(&port) else {
            return;
        };
        if std::mem::replace(&mut stream.open, false) {
            self.send(port, Operation::Reset, ShutdownFlags::NONE, Vec::new());
        }
    }

    /// Whether the application has read everything up to the end of the stream.
    pub(crate) fn at_end(&self, port: u32) -> bool {
        self.streams.get(&port).is_some_and(|stream| {
            stream.read == stream.received
                && (!stream.open || stream.peer_shutdown.contains(ShutdownFlags::SEND))
        })
    }

    /// Whether the application has not ended its direction, and the host still reads.
    pub(crate) fn may_write(&self, port: u32) -> bool {
        self.streams.get(&port).is_some_and(|stream| {
            let ended = stream.shutdown.contains(ShutdownFlags::SEND);
            stream.open && !ended && !stream.peer_shutdown.contains(ShutdownFlags::RECEIVE)
        })
    }

    pub(crate) fn established(&self, port: u32) -> bool {
        self.streams
            .get(&port)
            .is_some_and(|stream| stream.open && !stream.connecting)
    }

    fn shut_down(&mut self, port: u32, flags: ShutdownFlags) {
        let Some(stream) = self.streams.get_mut(&port) else {
            return;
        };
        if !stream.open || stream.connecting || stream.shutdown.contains(flags) {
            return;
        }
        stream.shutdown = stream.shutdown.with(flags);
        let flags = stream.shutdown;
        self.send(port, Operation::Shutdown, flags, Vec::new());
    }

    /// A packet from the device.
    pub(crate) fn receive(&mut self, header: &Header, payload: &[u8]) {
        assert_eq!((header.src_cid, header.dst_cid), (PARENT_CID, GUEST_CID));
        assert_eq!(header.len as usize, payload.len());
        let operation = Operation::from_wire(header.operation).expect("an operation that exists");
        let port = header.dst_port;
        if operation == Operation::Request {
            assert!(
                !self.streams.contains_key(&port),
                "two requests for one connection"
            );
            self.streams.insert(port, Stream::new(header.src_port, false));
            self.credit(port, header);
            self.send(port, Operation::Response, ShutdownFlags::NONE, Vec::new());
            return;
        }
        let Some(stream) = self.streams.get_mut(&port).filter(|stream| stream.open) else {
            // Data may have been under way when the guest reset the connection.
            return;
        };
        assert_eq!(stream.parent_port, header.src_port);
        match operation {
            Operation::Response => assert!(std::mem::take(&mut stream.connecting)),
            Operation::Reset => stream.open = false,
            Operation::ReadWrite => {
                assert!(!stream.connecting && !stream.peer_shutdown.contains(ShutdownFlags::SEND));
                assert!(
                    stream.received - stream.announced + header.len <= BUFFER,
                    "the device overran the guest's credit"
                );
                for (at, byte) in (stream.received..).zip(payload) {
                    assert_eq!(*byte, pattern(port, at), "byte {at} from the host");
                }
                stream.received += header.len;
            }
            Operation::Shutdown => {
                stream.peer_shutdown = stream.peer_shutdown.with(ShutdownFlags::from_wire(header.flags));
            }
            Operation::CreditRequest => {
                self.send(port, Operation::CreditUpdate, ShutdownFlags::NONE, Vec::new());
            }
            Operation::CreditUpdate | Operation::Request => {}
        }
        self.credit(port, header);
        let stream = &self.streams[&port];
        if stream.open && stream.peer_shutdown == ShutdownFlags::BOTH && stream.read == stream.received {
            self.reset(port);
        }
    }

    fn credit(&mut self, port: u32, header: &Header) {
        let stream = self.streams.get_mut(&port).unwrap();
        stream.peer_buffer = header.buf_alloc;
        stream.peer_consumed = header.fwd_cnt;
    }

    fn send(&mut self, port: u32, operation: Operation, flags: ShutdownFlags, payload: Vec<u8>) {
        let stream = self.streams.get_mut(&port).unwrap();
        stream.announced = stream.read;
        let header = Header {
            src_cid: GUEST_CID,
            dst_cid: PARENT_CID,
            src_port: port,
            dst_port: stream.parent_port,
            len: u32::try_from(payload.len()).unwrap(),
            socket_type: SOCKET_STREAM,
            operation: operation.to_wire(),
            flags: flags.to_wire(),
            buf_alloc: BUFFER,
            fwd_cnt: stream.read,
        };
        self.transmit.push_back(Packet { header, payload });
    }
}

impl Stream {
    fn new(parent_port: u32, connecting: bool) -> Self {
        Self {
            parent_port,
            open: true,
            connecting,
            sent: 0,
            read: 0,
            received: 0,
            announced: 0,
            peer_buffer: 0,
            peer_consumed: 0,
            shutdown: ShutdownFlags::NONE,
            peer_shutdown: ShutdownFlags::NONE,
        }
    }
}
