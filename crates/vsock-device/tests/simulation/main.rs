//! A guest, a device and applications on the parent, with bytes that really move and steps in any order.
//!
//! Whatever the order: every byte arrives once and in its place, nobody overruns the other's credit, nothing is stuck while
//! both ends still read, and when all is over nothing is left in the device.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that meets an impossible value has failed"
)]

mod guest;
mod host;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vsock_device::{Action, ConnectionId, Direction, Limits, Muxer, Outgoing};

use guest::{Guest, Packet};
use host::{HostStream, Read};

const GUEST_CID: u64 = 16;
const PORTS: u32 = 5;
const WINDOW: u32 = 500;
/// What each side has written of a stream before it is done.
const ENOUGH: u32 = 5 * WINDOW;
/// Ports of the guest from here on are connected to by the host.
const LISTENING: u32 = 100;

/// The byte at place `at` of the stream at the guest's port `port`, in either direction.
fn pattern(port: u32, at: u32) -> u8 {
    (at.wrapping_mul(31).wrapping_add(port.wrapping_mul(7)) % 251) as u8
}

#[derive(Clone, Copy, Debug)]
enum Step {
    GuestConnects(u32),
    HostConnects(u32),
    GuestWrites(u32, u32),
    GuestReads(u32, u32),
    GuestShutsDownWrite(u32),
    GuestCloses(u32),
    GuestResets(u32),
    HostWrites(u32, u32),
    HostReads(u32, u32),
    HostShutsDownWrite(u32),
    HostCloses(u32),
    /// The device takes this many packets from the guest.
    Transmit(u32),
    /// The guest has this many receive buffers for the device, of this size.
    Receive(u32, u32),
    /// Sockets that have become writable or readable are looked at.
    HostEvents,
}

struct World {
    muxer: Muxer,
    guest: Guest,
    /// Host streams that the device holds, and those that it has closed.
    streams: HashMap<ConnectionId, HostStream>,
    finished: Vec<HostStream>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let limits = Limits {
            largest_window: WINDOW,
            smallest_window: WINDOW,
            ..Limits::default()
        };
        Self {
            muxer: Muxer::new(u32::try_from(GUEST_CID).unwrap(), limits),
            guest: Guest::default(),
            streams: HashMap::new(),
            finished: Vec::new(),
            now: Instant::now(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::GuestConnects(port) if !self.guest.streams.contains_key(&port) => {
                self.guest.connect(port, 9000 + port);
            }
            Step::HostConnects(port) if !self.known(LISTENING + port) => {
                let (id, _) = self.muxer.open(LISTENING + port, self.now).unwrap();
                self.streams.insert(id, HostStream::new(LISTENING + port));
            }
            Step::GuestWrites(port, length) => self.guest.write(port, length),
            Step::GuestReads(port, length) => self.guest.read(port, length),
            Step::GuestShutsDownWrite(port) => self.guest.shut_down_write(port),
            Step::GuestCloses(port) => self.guest.close(port),
            Step::GuestResets(port) if self.guest.established(port) => self.guest.reset(port),
            Step::GuestConnects(_) | Step::HostConnects(_) | Step::GuestResets(_) => {}
            Step::HostWrites(port, length) => {
                self.with_host(port, |stream| stream.application_writes(length));
            }
            Step::HostReads(port, length) => self.with_host(port, |stream| stream.application_reads(length)),
            Step::HostShutsDownWrite(port) => self.with_host(port, |stream| stream.write_shut_down = true),
            Step::HostCloses(port) => self.with_host(port, |stream| stream.application_closed = true),
            Step::Transmit(packets) => {
                for _ in 0..packets {
                    let Some(packet) = self.guest.transmit.pop_front() else {
                        break;
                    };
                    self.transmit(&packet);
                }
            }
            Step::Receive(buffers, size) => self.receive(buffers, size),
            Step::HostEvents => self.host_events(),
        }
    }

    fn known(&self, port: u32) -> bool {
        self.guest.streams.contains_key(&port)
            || self
                .streams
                .values()
                .chain(&self.finished)
                .any(|stream| stream.port == port)
    }

    fn with_host(&mut self, port: u32, act: impl FnOnce(&mut HostStream)) {
        let streams = self.streams.values_mut().chain(&mut self.finished);
        if let Some(stream) = streams.into_iter().find(|stream| stream.port == port) {
            act(stream);
        }
    }

    fn transmit(&mut self, packet: &Packet) {
        let action = self.muxer.guest_packet(&packet.header, packet.header.len);
        self.act(action, &packet.payload);
        assert_eq!(
            self.muxer.faults(),
            0,
            "a sound guest breaks no rule: {:?}",
            packet.header
        );
    }

    fn act(&mut self, action: Action, payload: &[u8]) {
        match action {
            Action::None | Action::Established { .. } => {}
            Action::Connect { id, port } => {
                assert!(port >= 9000);
                self.streams.insert(id, HostStream::new(port - 9000));
                assert!(self.muxer.connected(id));
            }
            Action::Write { id, length } => {
                let stream = self
                    .streams
                    .get_mut(&id)
                    .expect("data for a stream that the device holds");
                stream.buffered.extend(&payload[..length as usize]);
                assert!(
                    stream.buffered.len() <= WINDOW as usize,
                    "more buffered than was promised"
                );
                self.flush(id);
            }
            Action::Shutdown {
                id,
                direction: Direction::ToHost,
            } => self.streams.get_mut(&id).unwrap().device_ended = true,
            Action::Shutdown {
                id,
                direction: Direction::FromHost,
            } => self.streams.get_mut(&id).unwrap().device_deaf = true,
            Action::Close { id } => {
                let mut stream = self
                    .streams
                    .remove(&id)
                    .expect("only streams that the device holds are closed");
                (stream.device_ended, stream.device_deaf) = (true, true);
                self.finished.push(stream);
            }
        }
    }

    fn flush(&mut self, id: ConnectionId) {
        let stream = self.streams.get_mut(&id).unwrap();
        let bytes: Vec<_> = stream.buffered.iter().copied().collect();
        let action = match stream.device_writes(&bytes) {
            Some(0) => return,
            Some(taken) => {
                stream.buffered.drain(..taken);
                self.muxer.delivered(id, u32::try_from(taken).unwrap())
            }
            None => {
                stream.buffered.clear();
                self.muxer.ended_by_host(id, Direction::ToHost, self.now)
            }
        };
        self.act(action, &[]);
    }

    fn host_events(&mut self) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            let stream = &self.streams[&id];
            let pending = !stream.buffered.is_empty();
            self.muxer.readable(id, stream.has_news());
            if pending || self.streams[&id].application_closed {
                self.flush(id);
            }
        }
    }

    fn receive(&mut self, buffers: u32, size: u32) {
        for _ in 0..buffers {
            match self.muxer.next_outgoing() {
                None => {
                    assert!(!self.muxer.has_outgoing());
                    return;
                }
                Some(Outgoing::Packet(header)) => self.guest.receive(&header, &[]),
                Some(Outgoing::Data { id, limit }) => {
                    assert!(limit > 0);
                    self.send_data(id, limit.min(size));
                }
            }
        }
    }

    fn send_data(&mut self, id: ConnectionId, limit: u32) {
        match self
            .streams
            .get_mut(&id)
            .expect("a turn for a stream that the device holds")
            .device_reads(limit)
        {
            Read::Bytes(bytes) => {
                let header = self
                    .muxer
                    .data_packet(id, u32::try_from(bytes.len()).unwrap())
                    .unwrap();
                self.guest.receive(&header, &bytes);
            }
            Read::Nothing => self.muxer.readable(id, false),
            Read::End => {
                let action = self.muxer.ended_by_host(id, Direction::FromHost, self.now);
                self.act(action, &[]);
            }
        }
    }

    /// Both sides write until they have written several windows full, read what there is, and close when they have seen the
    /// end. Whatever is stuck, for want of credit or of a wake-up, shows as a stream that is left over.
    fn finish(&mut self) {
        let ports: Vec<_> = (0..PORTS).chain(LISTENING..LISTENING + PORTS).collect();
        for _ in 0..200 {
            for &port in &ports {
                self.finish_guest(port);
                self.with_host(port, |stream| {
                    stream.application_writes(ENOUGH.saturating_sub(stream.written));
                    stream.application_reads(1000);
                    stream.write_shut_down |= stream.written >= ENOUGH;
                    stream.application_closed |= stream.at_end() && stream.write_shut_down;
                });
            }
            self.step(Step::HostEvents);
            self.step(Step::Transmit(100));
            self.step(Step::Receive(100, 100));
        }
    }

    fn finish_guest(&mut self, port: u32) {
        let Some(sent) = self.guest.streams.get(&port).map(|stream| stream.sent) else {
            return;
        };
        self.guest.read(port, 1000);
        if self.guest.may_write(port) && sent < ENOUGH {
            self.guest.write(port, ENOUGH - sent);
        } else {
            self.guest.shut_down_write(port);
            if self.guest.at_end(port) {
                self.guest.close(port);
            }
        }
    }
}

fn any_step() -> impl Strategy<Value = Step> {
    let port = prop_oneof![0..PORTS, LISTENING..LISTENING + PORTS];
    let length = 1_u32..600;
    prop_oneof![
        2 => (0..PORTS).prop_map(Step::GuestConnects),
        2 => (0..PORTS).prop_map(Step::HostConnects),
        6 => (port.clone(), length.clone()).prop_map(|(port, length)| Step::GuestWrites(port, length)),
        4 => (port.clone(), length.clone()).prop_map(|(port, length)| Step::GuestReads(port, length)),
        6 => (port.clone(), length.clone()).prop_map(|(port, length)| Step::HostWrites(port, length)),
        4 => (port.clone(), length.clone()).prop_map(|(port, length)| Step::HostReads(port, length)),
        1 => port.clone().prop_map(Step::GuestShutsDownWrite),
        1 => port.clone().prop_map(Step::HostShutsDownWrite),
        6 => (1_u32..10).prop_map(Step::Transmit),
        6 => (1_u32..10, 1_u32..300).prop_map(|(buffers, size)| Step::Receive(buffers, size)),
        4 => Just(Step::HostEvents),
    ]
}

fn any_step_or_abort() -> impl Strategy<Value = Step> {
    let port = prop_oneof![0..PORTS, LISTENING..LISTENING + PORTS];
    prop_oneof![
        20 => any_step(),
        1 => port.clone().prop_map(Step::GuestCloses),
        1 => port.clone().prop_map(Step::GuestResets),
        1 => port.prop_map(Step::HostCloses),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Streams that end in good order: everything arrives at both ends.
    #[test]
    fn every_byte_arrives(steps in prop::collection::vec(any_step(), 1..400)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();

        prop_assert!(world.streams.is_empty(), "streams are left over");
        prop_assert_eq!(world.muxer.connections(), 0);
        prop_assert!(!world.muxer.has_outgoing());
        prop_assert_eq!(world.muxer.next_deadline(), None);
        for stream in &world.finished {
            let guest = &world.guest.streams[&stream.port];
            prop_assert_eq!(stream.read, guest.sent, "to the host at port {}", stream.port);
            prop_assert_eq!(guest.read, stream.written, "to the guest at port {}", stream.port);
        }
    }

    /// Streams that either side may close or reset at any time: what was accepted from the guest is delivered to a host that
    /// still reads, what arrives is in order, and nothing is left over.
    #[test]
    fn aborts_leave_nothing_behind(steps in prop::collection::vec(any_step_or_abort(), 1..400)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.finish();
        world.now += Duration::from_mins(1);
        while let Some(action) = world.muxer.expire(world.now) {
            world.act(action, &[]);
        }
        world.finish();

        prop_assert!(world.streams.is_empty(), "streams are left over");
        prop_assert_eq!(world.muxer.connections(), 0);
        prop_assert!(!world.muxer.has_outgoing());
        for stream in &world.finished {
            let Some(guest) = world.guest.streams.get(&stream.port) else { continue };
            prop_assert!(stream.read <= guest.sent && guest.read <= stream.written);
            if !stream.application_closed {
                prop_assert_eq!(stream.read, guest.sent, "to a host that still reads, at port {}", stream.port);
            }
        }
    }
}
