//! A well-behaved vsock driver, as small as it can be: one stream at a time, queues looked at and no interrupts.
//!
//! Attacks reach through it to the queues and registers; [`Vsock::start`] makes all of it anew.

use crate::memory::{self, SHARED};
use crate::packet::{CREDIT_REQUEST, CREDIT_UPDATE, DATA, HEADER, Header, REQUEST, RESET, RESPONSE, STREAM};
use crate::processor::pause;
use crate::queue::{Descriptor, Queue, WRITE};
use crate::transport::{Transport, VERSION_1};

pub(crate) const RX: u32 = 0;
pub(crate) const TX: u32 = 1;
pub(crate) const EVENTS: u32 = 2;

/// The parent, as an enclave addresses it.
pub(crate) const PARENT: u64 = 3;

/// Buffers for packets to us, and what each holds.
pub(crate) const BUFFERS: u16 = 64;
const BUFFER_BYTES: u32 = 4096;
const RECEIVE_AREA: u64 = SHARED.start + 0x10_0000;

/// Packets of ours that may be under way, and what each may take.
const SLOTS: u16 = 64;
const SLOT_BYTES: u64 = 0x2000;
const TRANSMIT_AREA: u64 = SHARED.start + 0x20_0000;

/// Data in one packet of a well-behaved stream.
const PIECE: u32 = 2048;

/// What we say to have room for on a stream.
const ROOM: u32 = 64 << 10;

/// How often is looked before something counts as not coming: some seconds, on a slow machine more.
const PATIENCE: u32 = 30_000_000;

/// The first port of our streams.
const FIRST_PORT: u32 = 0x1_0000;

/// Why a stream did not do what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody listens, or the other end has gone.
    Refused,
    /// The device wants to be reset.
    Dead,
    /// Nothing has come for too long.
    Silent,
}

/// The driver.
#[derive(Debug)]
pub(crate) struct Vsock {
    pub(crate) transport: Transport,
    pub(crate) receive: Queue,
    pub(crate) transmit: Queue,
    pub(crate) events: Queue,
    pub(crate) cid: u64,
    /// Slots in use, a bit each.
    busy: u64,
    next_port: u32,
}

/// A packet that has arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    buffer: u16,
    pub(crate) header: Header,
    /// Bytes in the buffer, header included.
    written: u32,
}

impl Arrived {
    fn byte(&self, index: u32) -> u8 {
        memory::read(buffer_address(self.buffer) + u64::from(HEADER + index))
    }
}

impl Vsock {
    /// The driver of the device with this register window, which is started.
    pub(crate) fn new(window: u64) -> Self {
        let transport = Transport::at(window);
        let [receive, transmit, events] = [RX, TX, EVENTS].map(|index| Queue::new(index.into(), index, 256));
        let mut vsock = Self {
            transport,
            receive,
            transmit,
            events,
            cid: u64::from(transport.config(0)),
            busy: 0,
            next_port: FIRST_PORT,
        };
        vsock.start();
        vsock
    }

    /// Resets the device, and starts it with empty queues and all buffers offered.
    pub(crate) fn start(&mut self) {
        self.start_without_buffers(VERSION_1);
        for buffer in 0..BUFFERS {
            self.offer_buffer(buffer);
        }
        self.transport.notify(RX);
    }

    /// Likewise, without room for a single packet to us.
    pub(crate) fn start_without_buffers(&mut self, features: u64) {
        // Another processor may be at the registers, too.
        while !self.transport.negotiate(features) {}
        [self.receive, self.transmit, self.events] =
            [RX, TX, EVENTS].map(|index| Queue::new(index.into(), index, self.transport.queue_size(index)));
        for queue in [&self.receive, &self.transmit, &self.events] {
            self.transport.set_queue(queue);
        }
        self.transport.go();
        self.busy = 0;
    }

    pub(crate) fn queue(&mut self, index: u32) -> &mut Queue {
        match index {
            RX => &mut self.receive,
            TX => &mut self.transmit,
            _ => &mut self.events,
        }
    }

    pub(crate) fn offer_buffer(&mut self, buffer: u16) {
        let whole = Descriptor {
            address: buffer_address(buffer),
            length: BUFFER_BYTES,
            flags: WRITE,
            next: 0,
        };
        self.receive.describe(buffer, whole);
        self.receive.offer(buffer);
    }

    /// A port that no stream of ours has had for long.
    pub(crate) fn new_port(&mut self) -> u32 {
        self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        self.next_port
    }

    /// A header of ours to a port of the parent.
    pub(crate) fn header(&self, from: u32, to: u32, operation: u16) -> Header {
        Header {
            src_cid: self.cid,
            dst_cid: PARENT,
            src_port: from,
            dst_port: to,
            socket_type: STREAM,
            operation,
            buffer: ROOM,
            ..Header::default()
        }
    }

    /// Sends a header and this many bytes of whatever `byte` says.
    pub(crate) fn send(
        &mut self,
        header: &Header,
        bytes: u32,
        byte: impl Fn(u32) -> u8,
    ) -> Result<(), Fault> {
        let slot = self.free_slot()?;
        let address = TRANSMIT_AREA + u64::from(slot) * SLOT_BYTES;
        header.write(address);
        for index in 0..bytes {
            memory::write(address + u64::from(HEADER + index), byte(index));
        }
        let whole = Descriptor {
            address,
            length: HEADER + bytes,
            ..Descriptor::default()
        };
        self.transmit.describe(slot, whole);
        self.transmit.offer(slot);
        self.transport.notify(TX);
        Ok(())
    }

    fn free_slot(&mut self) -> Result<u16, Fault> {
        for look in 0..PATIENCE {
            while let Some((slot, _)) = self.transmit.take_used() {
                self.busy &= !(1 << (slot % SLOTS));
            }
            if let Some(slot) = (0..SLOTS).find(|slot| self.busy & 1 << slot == 0) {
                self.busy |= 1 << slot;
                return Ok(slot);
            }
            self.look_again(look)?;
        }
        Err(Fault::Silent)
    }

    fn look_again(&self, look: u32) -> Result<(), Fault> {
        pause();
        if look.is_multiple_of(100_000) && self.transport.needs_reset() {
            return Err(Fault::Dead);
        }
        Ok(())
    }

    /// The next packet that has arrived, if one has. [`Self::give_back`] offers its buffer again.
    pub(crate) fn arrived(&mut self) -> Option<Arrived> {
        let (buffer, written) = self.receive.take_used()?;
        let buffer = buffer % BUFFERS;
        Some(Arrived {
            buffer,
            header: Header::read(buffer_address(buffer)),
            written,
        })
    }

    pub(crate) fn give_back(&mut self, packet: &Arrived) {
        self.offer_buffer(packet.buffer);
        self.transport.notify(RX);
    }

    /// Throws away what has arrived.
    pub(crate) fn drain(&mut self) {
        while let Some(packet) = self.arrived() {
            self.give_back(&packet);
        }
    }

    fn next(&mut self) -> Result<Arrived, Fault> {
        for look in 0..PATIENCE {
            if let Some(packet) = self.arrived() {
                return Ok(packet);
            }
            self.look_again(look)?;
        }
        Err(Fault::Silent)
    }

    /// Opens a stream to a port of the parent, sends `bytes` bytes, and must get the same back.
    pub(crate) fn exchange(&mut self, to: u32, bytes: u32, byte: impl Fn(u32) -> u8) -> Result<(), Fault> {
        let from = self.new_port();
        let mut stream = Stream {
            ours: self.header(from, to, REQUEST),
            bytes,
            sent: 0,
            received: 0,
            theirs: None,
        };
        self.send(&stream.ours, 0, |_| 0)?;
        while stream.received < bytes {
            let packet = self.next()?;
            let outcome = stream.take(self, &packet, &byte);
            self.give_back(&packet);
            outcome?;
            stream.send_what_may_be_sent(self, &byte)?;
        }
        self.send(&self.header(from, to, RESET), 0, |_| 0)
    }

    /// Opens a stream, and leaves it open: our port.
    pub(crate) fn open(&mut self, to: u32) -> Result<u32, Fault> {
        let from = self.new_port();
        self.send(&self.header(from, to, REQUEST), 0, |_| 0)?;
        loop {
            let packet = self.next()?;
            self.give_back(&packet);
            let header = packet.header;
            if (header.src_port, header.dst_port) != (to, from) {
                self.refuse(&header)?;
                continue;
            }
            return match header.operation {
                RESPONSE => Ok(from),
                _ => Err(Fault::Refused),
            };
        }
    }

    /// Says that we know nothing of the stream that a packet is of.
    fn refuse(&mut self, header: &Header) -> Result<(), Fault> {
        if header.operation == RESET {
            return Ok(());
        }
        let reset = Header {
            src_cid: header.dst_cid,
            dst_cid: header.src_cid,
            ..self.header(header.dst_port, header.src_port, RESET)
        };
        self.send(&reset, 0, |_| 0)
    }
}

/// A stream on which we send and get the same back.
struct Stream {
    /// Ports and CIDs of our packets.
    ours: Header,
    bytes: u32,
    sent: u32,
    received: u32,
    /// The other end's buffer and what it has taken out of it; `None` before its first packet.
    theirs: Option<(u32, u32)>,
}

impl Stream {
    fn take(&mut self, vsock: &mut Vsock, packet: &Arrived, byte: &impl Fn(u32) -> u8) -> Result<(), Fault> {
        let header = packet.header;
        if (header.src_port, header.dst_port) != (self.ours.dst_port, self.ours.src_port) {
            return vsock.refuse(&header);
        }
        self.theirs = Some((header.buffer, header.forwarded));
        match header.operation {
            DATA => {
                assert!(packet.written == HEADER + header.length, "a length is wrong");
                for index in 0..header.length {
                    let [expected, arrived] = [byte(self.received + index), packet.byte(index)];
                    assert!(expected == arrived, "{arrived:#x} came back for {expected:#x}");
                }
                self.received += header.length;
                self.say(vsock, CREDIT_UPDATE)
            }
            CREDIT_REQUEST => self.say(vsock, CREDIT_UPDATE),
            RESPONSE | CREDIT_UPDATE => Ok(()),
            _ => Err(Fault::Refused),
        }
    }

    fn say(&self, vsock: &mut Vsock, operation: u16) -> Result<(), Fault> {
        let header = Header {
            operation,
            forwarded: self.received,
            ..self.ours
        };
        vsock.send(&header, 0, |_| 0)
    }

    fn send_what_may_be_sent(&mut self, vsock: &mut Vsock, byte: &impl Fn(u32) -> u8) -> Result<(), Fault> {
        while let Some((buffer, forwarded)) = self.theirs {
            let credit = buffer.saturating_sub(self.sent.wrapping_sub(forwarded));
            let length = PIECE.min(credit).min(self.bytes - self.sent);
            if length == 0 {
                break;
            }
            let header = Header {
                operation: DATA,
                length,
                forwarded: self.received,
                ..self.ours
            };
            let sent = self.sent;
            vsock.send(&header, length, |index| byte(sent + index))?;
            self.sent += length;
        }
        Ok(())
    }
}

fn buffer_address(buffer: u16) -> u64 {
    RECEIVE_AREA + u64::from(buffer) * u64::from(BUFFER_BYTES)
}
