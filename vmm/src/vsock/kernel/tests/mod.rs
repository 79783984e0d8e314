//! The whole device with a guest's driver and a vhost in this process. That the parent's own kernel takes it is shown by the
//! end-to-end suite `vsock`.

mod fake;

use std::sync::Arc;

use proptest::prelude::*;
use vsock_device::{HOST_CID, Header, Operation, PARENT_CID, SOCKET_STREAM};

use super::{Endpoints, SHADOW, open_with};
use crate::vsock::driver::{Descriptor, Driver, HEADER_THEN_DATA, RX, TX, WRITE, guest_memory};

use fake::{FakeVhost, TO_GUEST, TO_KERNEL};

const GUEST_CID: u32 = 16;

/// A guest's driver, and what takes its packets.
struct Pair {
    driver: Driver<Endpoints<FakeVhost>>,
    vhost: FakeVhost,
}

impl Pair {
    /// The device is initialised, without receive buffers.
    fn new() -> Self {
        let memory = guest_memory();
        let halves = open_with(GUEST_CID, &memory, |all| {
            Ok(FakeVhost::new(all, Arc::clone(&memory)))
        })
        .unwrap();
        let vhost = halves.0.backend().vhost.clone();
        let mut driver = Driver::new(memory, halves);
        driver.initialise();
        let mut pair = Self { driver, vhost };
        pair.turns();
        pair
    }

    /// The device has its turns until there is nothing left to do.
    fn turns(&mut self) {
        while self.driver.events.run_with_timeout(0).unwrap() > 0 {}
    }

    fn send(&mut self, header: &Header, payload: &[u8], cuts: &[u32]) {
        assert!(self.driver.transmit(header, payload, cuts));
        self.turns();
    }
}

fn to_parent(cid: u64, operation: Operation, payload: &[u8]) -> Header {
    Header {
        src_cid: GUEST_CID.into(),
        dst_cid: cid,
        src_port: 1024,
        dst_port: 9000,
        len: payload.len().try_into().unwrap(),
        socket_type: SOCKET_STREAM,
        operation: operation as u16,
        flags: 0,
        buf_alloc: 1 << 18,
        fwd_cnt: 0,
    }
}

fn to_guest(operation: Operation) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: GUEST_CID.into(),
        src_port: 9000,
        dst_port: 1024,
        ..to_parent(0, operation, &[])
    }
}

#[test]
fn what_the_guest_sends_to_its_parent_reaches_the_host_however_it_is_cut() {
    let mut pair = Pair::new();
    let payload: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    for cuts in [
        &[44][..],
        &[],
        &[1, 2, 3],
        &[43, 1],
        &[44, 1, 1],
        &[50, 4000, 65_000],
        &[10; 15],
    ] {
        let header = to_parent(PARENT_CID, Operation::ReadWrite, &payload);
        pair.send(&header, &payload, cuts);

        let (seen, bytes) = pair.vhost.take().unwrap();

        let expected = Header {
            dst_cid: HOST_CID,
            ..header
        };
        assert_eq!(seen, expected);
        assert_eq!(bytes, payload);
        assert_eq!(pair.vhost.take(), None);
    }
}

#[test]
fn what_the_host_sends_comes_from_the_parent() {
    for split in [false, true] {
        let mut pair = Pair::new();
        pair.driver.split_receive_buffers = split;
        pair.driver.offer_buffers(0..pair.driver.buffers());
        pair.turns();
        for number in 0..2000_u32 {
            let payload = number.to_le_bytes().repeat(number as usize % 1000);
            let header = to_guest(Operation::ReadWrite);

            assert!(pair.vhost.put(header, &payload));
            pair.turns();

            let (seen, bytes) = pair.driver.receive(true).unwrap();
            assert_eq!(seen.src_cid, PARENT_CID);
            assert_eq!((seen.src_port, seen.dst_port), (9000, 1024));
            assert_eq!(bytes, payload);
            pair.turns();
        }
        assert!(pair.driver.receive(true).is_none());
    }
}

#[test]
fn a_guest_that_calls_its_parent_2_is_answered_by_2() {
    let mut pair = Pair::new();
    pair.driver.offer_buffers(0..4);
    pair.send(
        &to_parent(HOST_CID, Operation::Request, &[]),
        &[],
        HEADER_THEN_DATA,
    );
    assert_eq!(pair.vhost.take().unwrap().0.dst_cid, HOST_CID);

    assert!(pair.vhost.put(to_guest(Operation::Response), &[]));
    pair.turns();

    assert_eq!(pair.driver.receive(false).unwrap().0.src_cid, HOST_CID);
}

#[test]
fn the_driver_is_interrupted_for_what_it_waits_for() {
    let mut pair = Pair::new();
    pair.driver.offer_buffers(0..4);
    pair.turns();
    let _ = pair.driver.irqfd.read();

    assert!(pair.vhost.put(to_guest(Operation::ReadWrite), b"x"));
    assert!(
        pair.driver.irqfd.read().is_err(),
        "nothing is delivered without a turn"
    );
    pair.turns();

    assert!(pair.driver.irqfd.read().is_ok());
}

/// More than the rings have entries, with a kernel that takes nothing for a while.
#[test]
fn a_kernel_that_stalls_loses_nothing() {
    let mut pair = Pair::new();
    let mut sent = 0_u32;
    let mut taken = 0_u32;
    for round in 0..3000_u32 {
        let payload = sent.to_le_bytes();
        let header = to_parent(PARENT_CID, Operation::ReadWrite, &payload);
        if pair.driver.transmit(&header, &payload, &[44, 1, 1, 1]) {
            sent += 1;
        }
        pair.turns();
        if round % 40 > 30 {
            while let Some((_, bytes)) = pair.vhost.take() {
                assert_eq!(bytes, taken.to_le_bytes());
                taken += 1;
            }
            pair.turns();
        }
    }
    while let Some((_, bytes)) = pair.vhost.take() {
        assert_eq!(bytes, taken.to_le_bytes());
        taken += 1;
    }
    assert_eq!(sent, taken);
    assert!(sent > 1000);
}

#[test]
fn a_reset_stops_the_kernel_and_the_next_driver_starts_afresh() {
    let mut pair = Pair::new();
    pair.driver.offer_buffers(0..100);
    let hello = to_parent(PARENT_CID, Operation::ReadWrite, b"hello");
    pair.send(&hello, b"hello", HEADER_THEN_DATA);
    assert_eq!(pair.vhost.starts_and_stops(), (1, 0));

    pair.driver.reset();
    assert_eq!(pair.vhost.starts_and_stops(), (1, 1));
    assert!(!pair.vhost.put(to_guest(Operation::ReadWrite), b"late"));
    pair.turns();

    pair.driver.initialise();
    pair.driver.offer_buffers(0..2);
    pair.turns();
    assert_eq!(pair.vhost.take(), None, "what the last driver sent is gone");
    assert!(pair.vhost.put(to_guest(Operation::ReadWrite), b"again"));
    pair.turns();
    assert_eq!(pair.driver.receive(true).unwrap().1, b"again");
    assert_eq!(pair.vhost.starts_and_stops(), (2, 1));
}

#[test]
fn addresses_outside_of_guest_memory_never_reach_the_kernel() {
    let mut pair = Pair::new();
    let outside = [
        SHADOW.0,
        SHADOW.0 + 16,
        SHADOW.0 - 16,
        0x50_0000 - 16,
        0xd000_0000,
        u64::MAX - 20,
        u64::MAX,
    ];
    for (queue, flags) in [(TX, 0), (RX, WRITE)] {
        for address in outside {
            pair.driver.describe(
                queue,
                0,
                Descriptor {
                    address,
                    length: 64,
                    flags,
                    next: 0,
                },
            );
            pair.driver.make_available(queue, 0);
            pair.driver.kick(queue);
            pair.turns();
            assert_eq!(pair.driver.take_used(queue), Some((0, 0)), "{address:#x}");
        }
    }
    assert_eq!(pair.vhost.take(), None);
    assert!(!pair.vhost.put(to_guest(Operation::ReadWrite), b"x"));
    // And nothing is broken by it.
    pair.send(&to_parent(PARENT_CID, Operation::ReadWrite, b"y"), b"y", &[44]);
    assert_eq!(pair.vhost.take().unwrap().1, b"y");
}

#[test]
fn chains_without_room_for_a_header_and_chains_that_loop_are_returned() {
    let mut pair = Pair::new();
    let descriptor = |length, flags, next| Descriptor {
        address: 0x20_0000,
        length,
        flags,
        next,
    };
    for (length, flags) in [(0, 0), (43, 0), (44, WRITE), (u32::MAX, 0)] {
        pair.driver.describe(TX, 0, descriptor(length, flags, 0));
        pair.driver.make_available(TX, 0);
        pair.driver.kick(TX);
        pair.turns();
        assert_eq!(pair.driver.take_used(TX), Some((0, 0)), "{length} {flags}");
    }
    assert_eq!(pair.vhost.take(), None);
    // Its own successor.
    pair.driver.describe(TX, 0, descriptor(1, 1, 0));
    pair.driver.make_available(TX, 0);
    pair.driver.kick(TX);
    pair.turns();
    assert_eq!(pair.vhost.take(), None);
    assert_eq!(pair.driver.take_used(TX), Some((0, 0)));
}

/// A chain of 256 descriptors is the longest, and takes its place although others are on their way.
#[test]
fn the_longest_chains_pass_one_after_the_other() {
    let mut pair = Pair::new();
    for index in 0..256_u16 {
        let flags = u16::from(index < 255);
        let descriptor = Descriptor {
            address: 0x20_0000 + u64::from(index) * 44,
            length: 44,
            flags,
            next: index + 1,
        };
        pair.driver.describe(TX, index, descriptor);
    }
    for _ in 0..5 {
        pair.driver.make_available(TX, 0);
    }
    pair.driver.kick(TX);
    for _ in 0..5 {
        pair.turns();
        let (_, payload) = pair.vhost.take().unwrap();
        assert_eq!(payload.len(), 255 * 44);
    }
    pair.turns();
    for _ in 0..5 {
        assert_eq!(pair.driver.take_used(TX), Some((0, 0)));
    }
}

/// Empty buffers, too: their addresses would be in the kernel's ring.
#[test]
fn a_receive_chain_with_an_unusable_piece_is_returned_and_leaves_nothing_in_the_ring() {
    let mut pair = Pair::new();
    let good = Descriptor {
        address: 0x20_0000,
        length: 4096,
        flags: WRITE | 1,
        next: 1,
    };
    for bad in [
        Descriptor {
            length: 0,
            flags: WRITE,
            ..good
        },
        Descriptor {
            address: SHADOW.0,
            length: 0,
            flags: WRITE,
            ..good
        },
        Descriptor { flags: 0, ..good },
        Descriptor { next: 0, ..good },
        Descriptor { next: 256, ..good },
    ] {
        pair.driver.describe(RX, 0, good);
        pair.driver.describe(RX, 1, bad);
        pair.driver.make_available(RX, 0);
        pair.driver.kick(RX);
        pair.turns();
        assert_eq!(pair.driver.take_used(RX), Some((0, 0)), "{bad:?}");
        assert!(!pair.vhost.put(to_guest(Operation::ReadWrite), b"x"));
    }
}

#[test]
fn a_buffer_that_is_offered_twice_stops_the_device_until_it_is_reset() {
    let mut pair = Pair::new();
    pair.driver.offer_buffers(0..1);
    pair.turns();
    pair.driver.make_available(RX, 0);
    pair.driver.kick(RX);
    pair.turns();
    assert_eq!(pair.driver.status() & 0x40, 0x40, "DEVICE_NEEDS_RESET");
    assert_eq!(pair.vhost.starts_and_stops(), (1, 1));
    pair.driver.initialise();
    pair.driver.offer_buffers(0..1);
    pair.turns();
    assert!(pair.vhost.put(to_guest(Operation::ReadWrite), b"again"));
    pair.turns();
    assert_eq!(pair.driver.receive(false).unwrap().1, b"again");
}

#[test]
fn a_reset_brings_no_more_calls_to_shared_ports() {
    let mut pair = Pair::new();
    let mut seen = 0;
    for _ in 0..3 {
        for _ in 0..5 {
            pair.send(
                &to_parent(PARENT_CID, Operation::Request, &[]),
                &[],
                HEADER_THEN_DATA,
            );
            seen += usize::from(pair.vhost.take().is_some());
        }
        pair.driver.initialise();
        pair.turns();
    }
    assert_eq!(seen, 4);
}

#[test]
fn a_guest_that_breaks_its_rings_stops_its_device_and_the_kernel() {
    let mut pair = Pair::new();
    pair.driver.set_available_index(TX, 1000);
    pair.driver.write(0x50, TX);
    pair.turns();
    assert_eq!(pair.driver.status() & 0x40, 0x40, "DEVICE_NEEDS_RESET");
    assert_eq!(pair.vhost.starts_and_stops(), (1, 1));
    pair.driver.initialise();
    pair.turns();
    assert_eq!(pair.vhost.starts_and_stops(), (2, 1));
}

#[test]
fn a_kernel_that_returns_what_it_does_not_have_stops_the_device() {
    for (ring, head) in [
        (TO_KERNEL, 0),
        (TO_KERNEL, 511),
        (TO_KERNEL, 512),
        (TO_GUEST, u32::MAX),
    ] {
        let mut pair = Pair::new();
        pair.vhost.return_nonsense(ring, head);
        pair.turns();
        assert_eq!(pair.driver.status() & 0x40, 0x40, "{head}");
    }
}

/// What a hostile driver may write into its rings: mostly numbers that mean something.
fn descriptor() -> impl Strategy<Value = Descriptor> {
    let address = prop_oneof![
        0_u64..0x60_0000,
        Just(SHADOW.0),
        (0_u64..0x2_0000).prop_map(|offset| SHADOW.0 + offset),
        any::<u64>()
    ];
    let length = prop_oneof![0_u32..200, 0_u32..0x10_0000, any::<u32>()];
    let flags = prop_oneof![0_u16..4, any::<u16>()];
    (address, length, flags, prop_oneof![0_u16..8, any::<u16>()]).prop_map(
        |(address, length, flags, next)| Descriptor {
            address,
            length,
            flags,
            next,
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Describe(bool, u16, Descriptor),
    Offer(bool, u16),
    Index(bool, u16),
    Turn,
    Take,
    Put(usize),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), 0_u16..8, descriptor()).prop_map(|(tx, index, d)| Step::Describe(tx, index, d)),
        8 => (any::<bool>(), prop_oneof![0_u16..8, any::<u16>()]).prop_map(|(tx, head)| Step::Offer(tx, head)),
        1 => (any::<bool>(), any::<u16>()).prop_map(|(tx, index)| Step::Index(tx, index)),
        8 => Just(Step::Turn),
        4 => Just(Step::Take),
        4 => (0_usize..5000).prop_map(Step::Put),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// Whatever the guest does to its rings, the kernel is pointed at guest memory and header slots only (`FakeVhost` checks
    /// that), nothing panics, and after a reset everything works.
    #[test]
    fn no_ring_of_the_guests_points_the_kernel_anywhere_else(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        let queue = |tx| if tx { TX } else { RX };
        for step in steps {
            match step {
                Step::Describe(tx, index, descriptor) => pair.driver.describe(queue(tx), index, descriptor),
                Step::Offer(tx, head) => {
                    pair.driver.make_available(queue(tx), head);
                    pair.driver.write(0x50, queue(tx));
                }
                Step::Index(tx, index) => {
                    pair.driver.set_available_index(queue(tx), index);
                    pair.driver.write(0x50, queue(tx));
                }
                Step::Turn => pair.turns(),
                Step::Take => drop(pair.vhost.take()),
                Step::Put(length) => drop(pair.vhost.put(to_guest(Operation::ReadWrite), &vec![7; length])),
                Step::Reset => pair.driver.initialise(),
            }
        }
        pair.driver.initialise();
        pair.driver.offer_buffers(0..2);
        pair.turns();
        while pair.vhost.take().is_some() {}
        pair.send(&to_parent(PARENT_CID, Operation::ReadWrite, b"y"), b"y", &[44]);
        prop_assert_eq!(pair.vhost.take().unwrap().1, b"y");
        prop_assert!(pair.vhost.put(to_guest(Operation::ReadWrite), b"x"));
        pair.turns();
        prop_assert_eq!(pair.driver.receive(false).unwrap().1, b"x");
    }
}
