//! The whole device with a driver in this process and a daemon at the other end of a socket.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use api::nsm::{MAX_REQUEST, MAX_REQUEST_PACKET, RequestPacket, ResponsePacket};
use event_manager::{EventManager, SubscriberOps};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tempfile::TempDir;
use virtio::{GuestMemory, MmioTransport};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Nsm, NsmWorker, open};

const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const SIZE: u16 = 16;
const WRITE: u16 = 2;
const REQUEST: u64 = 0x1_0000;
const RESPONSE: u64 = 0x2_0000;
const MEMORY: u64 = 0x10_0000;

/// Guest, device, and the directory with the socket.
struct Machine {
    memory: Arc<GuestMemory>,
    transport: MmioTransport<Nsm>,
    events: EventManager<NsmWorker>,
    irqfd: EventFd,
    directory: TempDir,
    /// Chains that were made available since the last reset.
    available: u16,
}

/// A daemon that has connected.
struct Daemon(OwnedFd);

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (device, worker) = open(listen(&directory)).unwrap();
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), usize::try_from(MEMORY).unwrap())]);
        let memory = Arc::new(memory.unwrap());
        let irqfd = EventFd::new(EFD_NONBLOCK).unwrap();
        let transport = MmioTransport::new(device, Arc::clone(&memory), irqfd.try_clone().unwrap()).unwrap();
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(worker);
        let mut machine = Self {
            memory,
            transport,
            events,
            irqfd,
            directory,
            available: 0,
        };
        machine.initialise();
        machine
    }

    fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    /// Resets the device and initialises it, with empty rings, without EVENT_IDX.
    fn initialise(&mut self) {
        self.write(0x70, 0);
        self.memory
            .write_slice(&[0; 0x3000], GuestAddress(DESCRIPTORS))
            .unwrap();
        self.available = 0;
        for status in [1, 3] {
            self.write(0x70, status);
        }
        self.write(0x24, 1);
        self.write(0x20, 1);
        self.write(0x70, 0xb);
        self.write(0x30, 0);
        self.write(0x38, u32::from(SIZE));
        for (register, address) in [(0x80, DESCRIPTORS), (0x90, AVAILABLE), (0xa0, USED)] {
            self.write(register, u32::try_from(address).unwrap());
            self.write(register + 4, 0);
        }
        self.write(0x44, 1);
        self.write(0x70, 0xf);
    }

    /// Makes a chain of one descriptor available; its number.
    fn offer(&mut self, address: u64, length: u32, flags: u16) -> u16 {
        let index = self.available % SIZE;
        let entry = DESCRIPTORS + 16 * u64::from(index);
        self.memory.write_obj(address, GuestAddress(entry)).unwrap();
        self.memory.write_obj(length, GuestAddress(entry + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(entry + 12)).unwrap();
        let slot = AVAILABLE + 4 + 2 * u64::from(index);
        self.memory.write_obj(index, GuestAddress(slot)).unwrap();
        self.available += 1;
        self.memory
            .write_obj(self.available, GuestAddress(AVAILABLE + 2))
            .unwrap();
        index
    }

    fn ring(&mut self) {
        self.write(0x50, 0);
        self.run();
    }

    fn run(&mut self) {
        while self.events.run_with_timeout(0).unwrap() > 0 {}
    }

    /// The driver's call: both chains and one doorbell.
    fn call(&mut self, request: &[u8], room: u32) {
        self.memory.write_slice(request, GuestAddress(REQUEST)).unwrap();
        self.offer(REQUEST, u32::try_from(request.len()).unwrap(), 0);
        self.offer(RESPONSE, room, WRITE);
        self.ring();
    }

    /// The chains that have come back since the last reset, with how much was written.
    fn used(&self) -> Vec<(u32, u32)> {
        let count: u16 = self.memory.read_obj(GuestAddress(USED + 2)).unwrap();
        let entry = |index: u16| USED + 4 + 8 * u64::from(index % SIZE);
        let read = |address| self.memory.read_obj::<u32>(GuestAddress(address)).unwrap();
        (0..count)
            .map(|index| (read(entry(index)), read(entry(index) + 4)))
            .collect()
    }

    fn response(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(RESPONSE))
            .unwrap();
        bytes
    }

    fn interrupts(&self) -> u64 {
        self.irqfd.read().unwrap_or(0)
    }

    fn connect(&mut self) -> Daemon {
        let socket = seqpacket();
        let address = SocketAddrUnix::new(socket_path(&self.directory)).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        rustix::io::ioctl_fionbio(&socket, true).unwrap();
        self.run();
        Daemon(socket)
    }
}

impl Daemon {
    /// The next request: its number, the guest's room, the bytes.
    fn heard(&self) -> Option<(u64, u32, Vec<u8>)> {
        let mut packet = vec![0; MAX_REQUEST_PACKET + 1];
        match rustix::net::recv(&self.0, &mut packet[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                let packet = RequestPacket::decode(&packet[..length])?;
                Some((packet.number, packet.room, packet.request.to_vec()))
            }
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                None
            }
        }
    }

    fn answer(&self, machine: &mut Machine, number: u64, response: &[u8]) {
        let packet = ResponsePacket { number, response }.encode();
        rustix::net::send(&self.0, &packet, SendFlags::empty()).unwrap();
        machine.run();
    }
}

fn seqpacket() -> OwnedFd {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap()
}

fn socket_path(directory: &TempDir) -> PathBuf {
    directory.path().join("nsm.sock")
}

fn listen(directory: &TempDir) -> OwnedFd {
    let socket = seqpacket();
    let address = SocketAddrUnix::new(socket_path(directory)).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 4).unwrap();
    socket
}

#[test]
fn a_call_comes_back_as_a_pair_with_one_interrupt() {
    let mut machine = Machine::new();
    let daemon = machine.connect();

    machine.call(b"request", 0x3000);

    let (number, room, request) = daemon.heard().unwrap();
    assert_eq!((room, request.as_slice()), (0x3000, &b"request"[..]));
    assert!(machine.used().is_empty());
    assert_eq!(machine.interrupts(), 0);
    daemon.answer(&mut machine, number, b"response");
    assert_eq!(machine.used(), [(0, 0), (1, 8)]);
    assert_eq!(machine.response(9), b"response\0");
    assert_eq!(machine.interrupts(), 1);
}

#[test]
fn the_halves_of_a_pair_may_come_one_by_one() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    machine.memory.write_slice(b"abc", GuestAddress(REQUEST)).unwrap();

    machine.offer(REQUEST, 3, 0);
    machine.ring();
    assert_eq!(daemon.heard(), None);
    machine.offer(RESPONSE, 16, WRITE);
    machine.ring();

    let (number, room, request) = daemon.heard().unwrap();
    assert_eq!((room, request.as_slice()), (16, &b"abc"[..]));
    daemon.answer(&mut machine, number, b"x");
    assert_eq!(machine.used(), [(0, 0), (1, 1)]);
}

#[test]
fn calls_that_are_made_at_once_are_answered_one_after_the_other() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    machine.call(b"1", 8);
    machine.call(b"2", 8);

    let (first, ..) = daemon.heard().unwrap();
    assert_eq!(daemon.heard(), None);
    daemon.answer(&mut machine, first, b"a");
    let (second, ..) = daemon.heard().unwrap();
    assert_ne!(first, second);
    daemon.answer(&mut machine, second, b"bc");

    assert_eq!(machine.used(), [(0, 0), (1, 1), (2, 0), (3, 2)]);
}

#[test]
fn a_call_waits_for_a_daemon_and_for_the_next_one() {
    let mut machine = Machine::new();
    machine.call(b"request", 8);
    let first = machine.connect();
    let (number, ..) = first.heard().unwrap();
    drop(first);
    machine.run();
    assert!(machine.used().is_empty());

    let second = machine.connect();

    let (again, _, request) = second.heard().unwrap();
    assert_eq!((again, request.as_slice()), (number, &b"request"[..]));
    second.answer(&mut machine, number, b"late");
    assert_eq!(machine.used(), [(0, 0), (1, 4)]);
    assert_eq!(second.heard(), None);
}

#[test]
fn a_response_to_another_request_and_what_is_no_response_are_passed_over() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    machine.call(b"request", 8);
    let (number, ..) = daemon.heard().unwrap();

    daemon.answer(&mut machine, number + 1, b"wrong");
    rustix::net::send(&daemon.0, b"short", SendFlags::empty()).unwrap();
    let long = vec![0; api::nsm::MAX_RESPONSE_PACKET + 1];
    rustix::net::send(&daemon.0, &long, SendFlags::empty()).unwrap();
    machine.run();
    assert!(machine.used().is_empty());

    daemon.answer(&mut machine, number, b"right");
    assert_eq!(machine.used(), [(0, 0), (1, 5)]);
    daemon.answer(&mut machine, number, b"twice");
    assert_eq!(machine.used().len(), 2);
}

#[test]
fn a_reset_forgets_the_exchange_and_not_the_daemon() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    machine.call(b"before", 8);
    let (before, ..) = daemon.heard().unwrap();

    machine.initialise();
    machine.run();
    daemon.answer(&mut machine, before, b"late");
    assert!(machine.used().is_empty());

    machine.call(b"after", 8);
    let (after, _, request) = daemon.heard().unwrap();
    assert_eq!(request, b"after");
    assert_ne!(before, after);
    daemon.answer(&mut machine, after, b"x");
    assert_eq!(machine.used(), [(0, 0), (1, 1)]);
}

#[test]
fn of_a_request_that_is_too_long_just_so_much_is_sent_that_it_shows() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    for (length, sent) in [
        (MAX_REQUEST, MAX_REQUEST),
        (MAX_REQUEST + 1, MAX_REQUEST + 1),
        (0x8000, MAX_REQUEST + 1),
    ] {
        machine.call(&vec![7; length], 8);
        let (number, _, request) = daemon.heard().unwrap();
        assert_eq!(request, vec![7; sent]);
        daemon.answer(&mut machine, number, b"");
    }
}

#[test]
fn no_more_is_written_than_there_is_room_for() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    machine.call(b"request", 4);
    let (number, ..) = daemon.heard().unwrap();

    daemon.answer(&mut machine, number, b"response");

    assert_eq!(machine.used(), [(0, 0), (1, 4)]);
    assert_eq!(machine.response(8), b"resp\0\0\0\0");
}

#[test]
fn chains_that_make_no_sense_harm_only_their_own_call() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    let outside = MEMORY + 0x1000;
    for (request, room) in [
        ((outside, 8, 0), (RESPONSE, 8, WRITE)),
        ((REQUEST, 8, WRITE), (RESPONSE, 8, 0)),
        ((u64::MAX - 2, u32::MAX, 0), (u64::MAX - 2, u32::MAX, WRITE)),
        ((REQUEST, 0, 0), (outside, 8, WRITE)),
    ] {
        let before = machine.used().len();
        machine.offer(request.0, request.1, request.2);
        machine.offer(room.0, room.1, room.2);
        machine.ring();
        let (number, _, bytes) = daemon.heard().unwrap();
        assert!(bytes.is_empty());
        daemon.answer(&mut machine, number, b"response");
        assert_eq!(machine.used().len(), before + 2);
    }
}

#[test]
fn a_broken_ring_stops_the_device_until_it_is_reset() {
    let mut machine = Machine::new();
    let daemon = machine.connect();
    machine
        .memory
        .write_obj(SIZE * 2 + 1, GuestAddress(AVAILABLE + 2))
        .unwrap();
    machine.ring();
    let mut status = [0; 4];
    machine.transport.read(0x70, &mut status);
    assert_eq!(status[0] & 0x40, 0x40, "DEVICE_NEEDS_RESET");

    machine.initialise();
    machine.call(b"request", 8);

    assert!(daemon.heard().is_some());
}
