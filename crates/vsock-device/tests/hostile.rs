//! A guest that knows the protocol's words and none of its rules, beside a connection that must not notice.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that meets an impossible value has failed"
)]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vsock_device::{
    Action, ConnectionId, Direction, HOST_CID, Header, Limits, Muxer, Operation, Outgoing, PARENT_CID,
    SOCKET_STREAM, ShutdownFlags,
};

const GUEST_CID: u32 = 16;
const VICTIM_PORT: u32 = 1;
const LIMITS: Limits = Limits {
    connections: 8,
    stray_resets: 4,
    largest_window: 1000,
    smallest_window: 100,
    window_pool: 4000,
    answer_within: Duration::from_secs(8),
};

fn packet(guest_port: u32, parent_port: u32, operation: Operation) -> Header {
    Header {
        src_cid: u64::from(GUEST_CID),
        dst_cid: PARENT_CID,
        src_port: guest_port,
        dst_port: parent_port,
        len: 0,
        socket_type: SOCKET_STREAM,
        operation: operation.to_wire(),
        flags: 0,
        buf_alloc: 1 << 20,
        fwd_cnt: 0,
    }
}

/// Everything that the guest gets, until there is no more. Turns for data are answered with "nothing to read".
fn take_all(muxer: &mut Muxer) -> Vec<Header> {
    let mut packets = Vec::new();
    while let Some(outgoing) = muxer.next_outgoing() {
        match outgoing {
            Outgoing::Packet(header) => packets.push(header),
            Outgoing::Data { id, .. } => muxer.readable(id, false),
        }
    }
    packets
}

fn operations(packets: &[Header]) -> Vec<Operation> {
    packets
        .iter()
        .map(|packet| Operation::from_wire(packet.operation).unwrap())
        .collect()
}

fn muxer() -> Muxer {
    Muxer::new(GUEST_CID, LIMITS)
}

/// A connection that the guest has opened and the host accepted.
fn established(muxer: &mut Muxer, guest_port: u32) -> ConnectionId {
    let Action::Connect { id, port } = muxer.guest_packet(&packet(guest_port, 9000, Operation::Request), 0)
    else {
        panic!("no connection at port {guest_port}");
    };
    assert_eq!(port, 9000);
    assert!(muxer.connected(id));
    let packets = take_all(muxer);
    assert_eq!(operations(&packets), [Operation::Response]);
    assert_eq!((packets[0].src_port, packets[0].dst_port), (9000, guest_port));
    id
}

#[test]
fn both_cids_of_the_parent_work_and_are_kept_apart() {
    let mut muxer = muxer();
    for cid in [HOST_CID, PARENT_CID] {
        let request = Header {
            dst_cid: cid,
            ..packet(5, 9000, Operation::Request)
        };
        let Action::Connect { id, .. } = muxer.guest_packet(&request, 0) else {
            panic!("CID {cid} was refused")
        };
        assert!(muxer.connected(id));
        assert_eq!(take_all(&mut muxer)[0].src_cid, cid);
    }
    assert_eq!(muxer.connections(), 2);
}

#[test]
fn strangers_are_dropped_or_reset_but_a_reset_is_not_answered() {
    let mut muxer = muxer();
    let request = packet(5, 9000, Operation::Request);
    assert_eq!(
        muxer.guest_packet(
            &Header {
                src_cid: 17,
                ..request
            },
            0
        ),
        Action::None
    );
    assert!(!muxer.has_outgoing());
    assert_eq!(muxer.faults(), 1);

    for stray in [
        Header {
            dst_cid: 17,
            ..request
        },
        Header {
            dst_cid: u64::MAX,
            ..request
        },
        Header {
            socket_type: 2,
            ..request
        },
        packet(5, 9000, Operation::ReadWrite),
        packet(5, 9000, Operation::Shutdown),
        Header {
            operation: 0,
            ..request
        },
        Header {
            operation: 99,
            ..request
        },
    ] {
        assert_eq!(muxer.guest_packet(&stray, 0), Action::None);
        let answers = take_all(&mut muxer);
        assert_eq!(operations(&answers), [Operation::Reset], "{stray:?}");
        let answer = answers[0];
        assert_eq!((answer.src_cid, answer.dst_cid), (stray.dst_cid, stray.src_cid));
        assert_eq!((answer.src_port, answer.dst_port), (9000, 5));
        assert_eq!(answer.socket_type, stray.socket_type);

        let reset = Header {
            operation: Operation::Reset.to_wire(),
            ..stray
        };
        assert_eq!(muxer.guest_packet(&reset, 0), Action::None);
        assert!(!muxer.has_outgoing());
    }
    assert_eq!(muxer.connections(), 0);
}

#[test]
fn what_breaks_the_protocol_resets_that_connection_alone() {
    let data = |len| Header {
        len,
        ..packet(5, 9000, Operation::ReadWrite)
    };
    for (bad, payload) in [
        (packet(5, 9000, Operation::Request), 0),
        (packet(5, 9000, Operation::Response), 0),
        (
            Header {
                operation: 0,
                ..data(0)
            },
            0,
        ),
        // More than the window, more than the packet has.
        (data(1001), 1001),
        (data(10), 9),
    ] {
        let mut muxer = muxer();
        let id = established(&mut muxer, 5);
        let other = established(&mut muxer, 6);
        assert_eq!(muxer.guest_packet(&bad, payload), Action::Close { id }, "{bad:?}");
        assert_eq!(operations(&take_all(&mut muxer)), [Operation::Reset]);
        assert_eq!(muxer.connections(), 1);
        let fine = Header {
            len: 3,
            ..packet(6, 9000, Operation::ReadWrite)
        };
        assert_eq!(
            muxer.guest_packet(&fine, 3),
            Action::Write { id: other, length: 3 }
        );
        assert_eq!(muxer.faults(), 1);
    }
}

/// A guest cannot know of room that it was not told of, but it may guess. What it sends must fit the buffer, no more.
#[test]
fn a_guest_may_use_room_that_was_never_announced() {
    let mut muxer = muxer();
    let id = established(&mut muxer, 5);
    let window = LIMITS.smallest_window;
    for _ in 0..3 {
        let data = Header {
            len: window,
            ..packet(5, 9000, Operation::ReadWrite)
        };
        assert_eq!(
            muxer.guest_packet(&data, window),
            Action::Write { id, length: window }
        );
        assert_eq!(muxer.delivered(id, window), Action::None);
    }
    let packets = take_all(&mut muxer);
    assert_eq!(operations(&packets), [Operation::CreditUpdate]);
    assert_eq!(packets[0].fwd_cnt, 3 * window);
}

#[test]
fn data_after_the_end_of_data_is_a_fault() {
    let mut muxer = muxer();
    let id = established(&mut muxer, 5);
    let end = Header {
        flags: ShutdownFlags::SEND.to_wire(),
        ..packet(5, 9000, Operation::Shutdown)
    };
    assert_eq!(
        muxer.guest_packet(&end, 0),
        Action::Shutdown {
            id,
            direction: Direction::ToHost
        }
    );
    assert_eq!(muxer.guest_packet(&end, 0), Action::None, "said once");
    let data = Header {
        len: 1,
        ..packet(5, 9000, Operation::ReadWrite)
    };
    assert_eq!(muxer.guest_packet(&data, 1), Action::Close { id });
}

#[test]
fn the_window_is_all_a_guest_may_send_ahead() {
    let mut muxer = muxer();
    let id = established(&mut muxer, 5);
    let data = |len| Header {
        len,
        ..packet(5, 9000, Operation::ReadWrite)
    };
    // The window of the first connection: a 64th of the pool is below the smallest.
    assert_eq!(
        muxer.guest_packet(&data(100), 100),
        Action::Write { id, length: 100 }
    );
    assert!(!muxer.has_outgoing(), "no room, no update");
    assert_eq!(muxer.delivered(id, 60), Action::None);
    let update = take_all(&mut muxer);
    assert_eq!(operations(&update), [Operation::CreditUpdate]);
    assert_eq!((update[0].buf_alloc, update[0].fwd_cnt), (100, 60));
    assert_eq!(
        muxer.guest_packet(&data(60), 60),
        Action::Write { id, length: 60 }
    );
    assert_eq!(muxer.guest_packet(&data(1), 1), Action::Close { id });
}

#[test]
fn many_questions_get_one_answer() {
    let mut muxer = muxer();
    established(&mut muxer, 5);
    for _ in 0..1000 {
        let _ = muxer.guest_packet(&packet(5, 9000, Operation::CreditRequest), 0);
    }
    assert_eq!(operations(&take_all(&mut muxer)), [Operation::CreditUpdate]);
}

#[test]
fn connections_and_stray_answers_are_bounded() {
    let mut muxer = muxer();
    for port in 0..100 {
        let _ = muxer.guest_packet(&packet(port, 9000, Operation::Request), 0);
    }
    assert!(muxer.is_full());
    assert_eq!(muxer.connections(), 8);
    assert_eq!(take_all(&mut muxer).len(), 4);
    assert!(muxer.open(1, Instant::now()).is_none());
}

#[test]
fn opening_and_resetting_for_ever_costs_nothing() {
    let mut muxer = muxer();
    for port in 0..100_000 {
        let Action::Connect { id, .. } = muxer.guest_packet(&packet(port, 9000, Operation::Request), 0)
        else {
            panic!("connection {port} was refused")
        };
        assert!(muxer.connected(id));
        assert_eq!(
            muxer.guest_packet(&packet(port, 9000, Operation::Reset), 0),
            Action::Close { id }
        );
    }
    assert_eq!(muxer.connections(), 0);
    assert!(!muxer.has_outgoing());
}

#[test]
fn a_guest_that_never_answers_is_given_up() {
    let mut muxer = muxer();
    let start = Instant::now();
    let (asked, _) = muxer.open(7, start).unwrap();
    assert_eq!(operations(&take_all(&mut muxer)), [Operation::Request]);
    let closed = established(&mut muxer, 5);
    assert_eq!(
        muxer.closed_by_host(closed, start + Duration::from_secs(1)),
        Action::Close { id: closed }
    );
    assert_eq!(operations(&take_all(&mut muxer)), [Operation::Shutdown]);

    assert_eq!(muxer.next_deadline(), Some(start + LIMITS.answer_within));
    assert_eq!(muxer.expire(start), None);
    assert_eq!(
        muxer.expire(start + LIMITS.answer_within),
        Some(Action::Close { id: asked })
    );
    assert_eq!(muxer.expire(start + LIMITS.answer_within), None);
    assert_eq!(muxer.expire(start + LIMITS.answer_within * 2), Some(Action::None));
    assert_eq!(muxer.next_deadline(), None);
    assert_eq!(
        operations(&take_all(&mut muxer)),
        [Operation::Reset, Operation::Reset]
    );
    assert_eq!(muxer.connections(), 0);
}

#[test]
fn a_client_that_leaves_before_the_guest_was_asked_is_never_mentioned() {
    let mut muxer = muxer();
    let (id, _) = muxer.open(7, Instant::now()).unwrap();
    assert_eq!(muxer.closed_by_host(id, Instant::now()), Action::Close { id });
    assert!(!muxer.has_outgoing());
    assert_eq!(muxer.connections(), 0);
}

#[test]
fn ids_of_the_dead_name_nobody() {
    let mut muxer = muxer();
    let old = established(&mut muxer, 5);
    let _ = muxer.guest_packet(&packet(5, 9000, Operation::Reset), 0);
    let new = established(&mut muxer, 5);
    assert_eq!(old.slot(), new.slot());
    assert_ne!(old.to_u64(), new.to_u64());
    assert_eq!(muxer.delivered(old, 10), Action::None);
    assert_eq!(muxer.closed_by_host(old, Instant::now()), Action::None);
    assert!(muxer.data_packet(old, 1).is_none());
    assert!(!muxer.has_outgoing());
}

#[test]
fn a_guest_may_open_again_what_it_reset_while_old_bytes_are_on_their_way() {
    let mut muxer = muxer();
    let old = established(&mut muxer, 5);
    let data = Header {
        len: 10,
        ..packet(5, 9000, Operation::ReadWrite)
    };
    assert_eq!(
        muxer.guest_packet(&data, 10),
        Action::Write { id: old, length: 10 }
    );
    let reset = muxer.guest_packet(&packet(5, 9000, Operation::Reset), 0);
    assert_eq!(
        reset,
        Action::Shutdown {
            id: old,
            direction: Direction::FromHost
        }
    );
    let new = established(&mut muxer, 5);
    assert_ne!(old.slot(), new.slot());
    assert_eq!(muxer.delivered(old, 10), Action::Close { id: old });
    assert_eq!(
        muxer.guest_packet(&data, 10),
        Action::Write { id: new, length: 10 }
    );
}

#[test]
fn turns_go_round() {
    let mut muxer = muxer();
    let ids: Vec<_> = (0..4).map(|port| established(&mut muxer, port)).collect();
    for &id in &ids {
        muxer.readable(id, true);
    }
    let mut order = Vec::new();
    for _ in 0..8 {
        let Some(Outgoing::Data { id, limit }) = muxer.next_outgoing() else {
            panic!("no turn")
        };
        muxer.data_packet(id, limit.min(10)).unwrap();
        order.push(id);
    }
    assert_eq!(order[..4], ids);
    assert_eq!(order[4..], ids);
}

/// A packet with fields that are often nearly right.
fn any_packet() -> impl Strategy<Value = (Header, u32)> {
    let rarely = |usual: u64| prop_oneof![9 => Just(usual), 1 => any::<u64>()];
    let numbers = prop_oneof![Just(0), 1_u32..200, any::<u32>()];
    (
        (
            rarely(u64::from(GUEST_CID)),
            prop_oneof![6 => Just(PARENT_CID), 3 => Just(HOST_CID), 1 => any::<u64>()],
        ),
        (
            2_u32..12,
            prop_oneof![Just(9000), Just(9001), (1_u32 << 30)..(1 << 30) + 4],
        ),
        (0_u16..9, prop_oneof![9 => Just(SOCKET_STREAM), 1 => any::<u16>()]),
        (numbers.clone(), 0_u32..4, numbers.clone(), numbers.clone()),
        numbers,
    )
        .prop_map(
            |((src_cid, dst_cid), (src_port, dst_port), (operation, socket_type), fields, payload)| {
                let (len, flags, buf_alloc, fwd_cnt) = fields;
                let header = Header {
                    src_cid,
                    dst_cid,
                    src_port,
                    dst_port,
                    len,
                    socket_type,
                    operation,
                    flags,
                    buf_alloc,
                    fwd_cnt,
                };
                (header, payload)
            },
        )
}

/// What the host does meanwhile, with any connection it has.
#[derive(Clone, Copy, Debug)]
enum HostEvent {
    Connected,
    Refused,
    Delivered(u32),
    Readable,
    Ended(Direction),
    Closed,
    Opens(u32),
    Expire,
    Receive(u32),
}

fn any_event() -> impl Strategy<Value = HostEvent> {
    prop_oneof![
        4 => Just(HostEvent::Connected),
        1 => Just(HostEvent::Refused),
        2 => (0_u32..200).prop_map(HostEvent::Delivered),
        2 => Just(HostEvent::Readable),
        1 => Just(HostEvent::Ended(Direction::FromHost)),
        1 => Just(HostEvent::Ended(Direction::ToHost)),
        1 => Just(HostEvent::Closed),
        1 => (2_u32..12).prop_map(HostEvent::Opens),
        1 => Just(HostEvent::Expire),
        2 => (1_u32..5).prop_map(HostEvent::Receive),
    ]
}

/// The host's books: which streams it holds, and how many bytes wait for each.
#[derive(Default)]
struct Books {
    streams: HashMap<ConnectionId, u32>,
    opening: HashSet<ConnectionId>,
}

impl Books {
    fn enter(&mut self, action: Action) {
        match action {
            Action::Connect { id, .. } => {
                assert!(self.streams.insert(id, 0).is_none(), "an id is used twice");
                self.opening.insert(id);
            }
            Action::Write { id, length } => {
                let waiting = self.streams.get_mut(&id).unwrap();
                *waiting += length;
                assert!(*waiting <= LIMITS.largest_window, "more bytes than the window");
            }
            Action::Close { id } => assert!(self.streams.remove(&id).is_some(), "a stream is closed twice"),
            Action::Shutdown { id, .. } | Action::Established { id } => {
                assert!(self.streams.contains_key(&id));
            }
            Action::None => {}
        }
    }
}

proptest! {
    #[test]
    fn nothing_a_guest_sends_hurts(
        steps in prop::collection::vec((prop::collection::vec(any_packet(), 0..4), any_event(), any::<prop::sample::Index>()), 1..100),
    ) {
        let mut muxer = muxer();
        let mut now = Instant::now();
        let victim = established(&mut muxer, VICTIM_PORT);
        let mut books = Books::default();
        for (packets, event, which) in steps {
            for (header, payload) in packets {
                books.enter(muxer.guest_packet(&header, payload));
            }
            let mut ids: Vec<_> = books.streams.keys().copied().collect();
            ids.sort_by_key(|id| id.slot());
            let id = if ids.is_empty() { None } else { Some(ids[which.index(ids.len())]) };
            match (event, id) {
                (HostEvent::Opens(port), _) => {
                    if let Some((id, _)) = muxer.open(port, now) {
                        books.streams.insert(id, 0);
                    }
                }
                (HostEvent::Expire, _) => {
                    now += LIMITS.answer_within;
                    while let Some(action) = muxer.expire(now) {
                        books.enter(action);
                    }
                }
                (HostEvent::Receive(count), _) => {
                    for _ in 0..count {
                        if let Some(Outgoing::Data { id, limit }) = muxer.next_outgoing() {
                            prop_assert!(limit > 0 && books.streams.contains_key(&id));
                            muxer.data_packet(id, limit.min(50)).unwrap();
                        }
                    }
                }
                (HostEvent::Connected, Some(id)) => {
                    let opening = books.opening.remove(&id);
                    prop_assert_eq!(muxer.connected(id), opening);
                }
                // Only streams that are being opened can be refused.
                (HostEvent::Refused, Some(id)) if books.opening.remove(&id) => {
                    muxer.refused(id);
                    books.streams.remove(&id);
                }
                (HostEvent::Delivered(length), Some(id)) => {
                    let waiting = books.streams.get_mut(&id).unwrap();
                    let length = length.min(*waiting);
                    *waiting -= length;
                    books.enter(muxer.delivered(id, length));
                }
                (HostEvent::Readable, Some(id)) => muxer.readable(id, true),
                (HostEvent::Ended(direction), Some(id)) => {
                    if direction == Direction::ToHost {
                        books.streams.insert(id, 0);
                    }
                    books.enter(muxer.ended_by_host(id, direction, now));
                }
                (HostEvent::Closed, Some(id)) => books.enter(muxer.closed_by_host(id, now)),
                (HostEvent::Refused, Some(_)) | (_, None) => {}
            }
            prop_assert!(muxer.connections() <= LIMITS.connections as usize);
        }

        // The victim has not noticed, and everything else ends when the host lets go and the guest reads.
        let _ = take_all(&mut muxer);
        let data = Header { len: 10, ..packet(VICTIM_PORT, 9000, Operation::ReadWrite) };
        prop_assert_eq!(muxer.guest_packet(&data, 10), Action::Write { id: victim, length: 10 });
        for id in books.streams.keys() {
            let _ = muxer.closed_by_host(*id, now);
        }
        now += LIMITS.answer_within;
        while muxer.expire(now).is_some() {}
        let _ = take_all(&mut muxer);
        prop_assert_eq!(muxer.connections(), 1);
    }
}
