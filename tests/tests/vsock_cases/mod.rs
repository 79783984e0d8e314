//! Streams between an enclave and its parent: what has to hold whatever carries them. `super::host` says which daemon to ask, `super::VSOCK` how.
//!
//! The application in the enclave is `vsock-echo`; it floods the console in every test, so that vsock and serial port are
//! busy at the same time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use end_to_end_tests::guest::{Address, FLOOD, Order, port};
use end_to_end_tests::stream::{self, Stream, Sum};
use end_to_end_tests::vsock_socket::{PortListener, connect, order, read_line};
use end_to_end_tests::{Enclave, Holdings, Host, Launch, World, descriptors, eifs, poll};

pub(crate) const MIB: u64 = 1 << 20;

/// The parent, as the enclave addresses it on AWS.
const PARENT: u32 = 3;

/// A port of the parent that nobody listens on.
const NOBODY: u32 = 4321;

/// An enclave with `vsock-echo`, whose services listen.
pub(crate) fn echoing(host: &Host) -> Enclave {
    let enclave = Launch::of(eifs::of_application("vsock-echo", &["flood"]))
        .with(super::VSOCK)
        .in_debug_mode()
        .run(host);
    enclave.console().wait_for(FLOOD);
    enclave
}

/// Connections to the echo service.
fn echoes(enclave: &Enclave, connections: u64) -> Vec<UnixStream> {
    stream::open(connections, || connect(enclave, port::ECHO)).expect("connect")
}

fn to_parent(port: u32) -> Address {
    Address { cid: PARENT, port }
}

/// Number of the last whole line of the flood.
fn flood_lines(console: &str) -> u64 {
    let lines = console
        .rsplit(FLOOD)
        .filter_map(|rest| rest.split_once(' ')?.0.parse().ok());
    lines.max().unwrap_or(0)
}

#[test]
fn sixty_four_connections_each_way_carry_a_hundred_mebibytes_each_way_while_the_console_floods() {
    const CONNECTIONS: u64 = 64;
    // Each is echoed: through the 64 of either side go 100 MiB into the enclave and 100 MiB out of it.
    const EACH: u64 = 100 * MIB / CONNECTIONS;
    const PORT: u32 = 6000;
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);
    let console = enclave.console();
    let listener = PortListener::bind(&enclave, PORT).expect("listen for the enclave");
    let lines_before = flood_lines(&console.stdout());
    let exchange = Order::Exchange {
        to: to_parent(PORT),
        connections: CONNECTIONS,
        bytes: EACH,
    };

    // All 128 are open before the data flow: with as many busy threads on an emulated processor, a connect may take longer
    // than the two seconds that the guest's Linux gives it.
    let from_parent = echoes(&enclave, CONNECTIONS);
    thread::scope(|scope| {
        let answer = scope.spawn(|| order(&enclave, exchange).expect("an answer"));
        let from_enclave = stream::open(CONNECTIONS, || listener.accept()).expect("accept");
        for connection in from_enclave {
            scope.spawn(|| stream::echo(connection));
        }
        stream::exchange_at_once(from_parent, 1, EACH).expect("what comes back is what was sent");
        assert_eq!(answer.join().expect("no panic"), "exchanged");
    });

    poll::until("the flood to have gone on meanwhile", || {
        (flood_lines(&console.stdout()) > lines_before).then_some(())
    });
}

/// The guest's Linux gives up on a connect after two seconds, and sends its packets behind those of all other connections.
/// Sixteen each way keep the queues full and leave an emulated processor time for one more.
#[test]
fn new_connections_succeed_in_both_directions_while_data_flow_in_both() {
    const CONNECTIONS: u64 = 16;
    const EACH: u64 = 2 * MIB;
    const BULK: u32 = 6003;
    const NEW: u32 = 6004;
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);
    let bulk = PortListener::bind(&enclave, BULK).expect("listen for the enclave");
    let new = PortListener::bind(&enclave, NEW).expect("listen for the enclave");
    let exchange = Order::Exchange {
        to: to_parent(BULK),
        connections: CONNECTIONS,
        bytes: EACH,
    };

    let from_parent = echoes(&enclave, CONNECTIONS);
    thread::scope(|scope| {
        let out = scope.spawn(|| order(&enclave, exchange).expect("an answer"));
        for connection in stream::open(CONNECTIONS, || bulk.accept()).expect("accept") {
            scope.spawn(|| stream::echo(connection));
        }
        let into = scope.spawn(|| stream::exchange_at_once(from_parent, 1, EACH));
        let mut opened = 0;
        loop {
            // A new connection into the enclave carries the order to make one out of it.
            let answer = order(&enclave, Order::Connect { to: to_parent(NEW) }).expect("a connection");
            assert_eq!(answer, "connected");
            new.accept().expect("the enclave has connected");
            if into.is_finished() || out.is_finished() {
                break;
            }
            opened += 1;
        }
        assert!(opened > 0, "the data were through too soon");
        assert_eq!(out.join().expect("no panic"), "exchanged");
        into.join()
            .expect("no panic")
            .expect("what comes back is what was sent");
    });
}

#[test]
fn either_end_can_stop_sending_and_still_receive() {
    const PORT: u32 = 6001;
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);

    // The parent ends its direction first; what it had sent still comes back.
    let mut from_parent = connect(&enclave, port::ECHO).expect("connect");
    from_parent.write_all(b"last words").expect("send");
    from_parent.end_sending().expect("end sending");
    let mut echoed = String::new();
    from_parent.read_to_string(&mut echoed).expect("receive");
    assert_eq!(echoed, "last words");

    // The enclave ends its direction first; it still gets megabytes.
    let listener = PortListener::bind(&enclave, PORT).expect("listen for the enclave");
    thread::scope(|scope| {
        let answer = scope.spawn(|| order(&enclave, Order::HalfClose { to: to_parent(PORT) }));
        let mut connection = listener.accept().expect("the enclave connects");
        assert_eq!(connection.read(&mut [0]).expect("its end of sending"), 0);
        let sent = stream::send(&mut connection, 5, 3 * MIB).expect("send");
        connection.end_sending().expect("end sending");
        assert_eq!(
            answer.join().expect("no panic").expect("an answer"),
            sent.to_string()
        );
    });
}

#[test]
fn a_port_that_nobody_listens_on_is_refused_at_once_in_both_directions() {
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);

    let refused = connect(&enclave, NOBODY).expect_err("nobody listens in the enclave");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset, "{refused}");

    for cid in [2, 3] {
        let to = Address { cid, port: NOBODY };
        let answer = order(&enclave, Order::Connect { to }).expect("an answer");
        assert!(answer.starts_with("ConnectionReset"), "{answer}");
    }
    // Both still work for others.
    assert!(stream::exchange(connect(&enclave, port::ECHO).expect("connect"), 1, MIB).is_ok());
}

#[test]
fn cid_2_and_cid_3_are_both_the_parent_and_no_other_is() {
    const PORT: u32 = 6002;
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);
    let listener = PortListener::bind(&enclave, PORT).expect("listen for the enclave");
    listener.echo_in_background(2).expect("echo");

    for cid in [2, 3] {
        let exchange = Order::Exchange {
            to: Address { cid, port: PORT },
            connections: 1,
            bytes: MIB,
        };
        assert_eq!(
            order(&enclave, exchange).expect("an answer"),
            "exchanged",
            "CID {cid}"
        );
    }
    let stranger = Address { cid: 99, port: PORT };
    let answer = order(&enclave, Order::Connect { to: stranger }).expect("an answer");
    assert_ne!(answer, "connected");
}

#[test]
fn a_reader_that_does_not_read_delays_nobody_and_loses_nothing() {
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);

    // One connection on which the parent does not read …
    let mut unread = connect(&enclave, port::SOURCE).expect("connect");
    writeln!(unread, "9 {}", 8 * MIB).expect("ask for data");
    // … one on which the enclave does not …
    let late = connect(&enclave, port::LATE).expect("connect");
    let mut sending = late.another().expect("another handle");
    let sender = thread::spawn(move || {
        let sum = stream::send(&mut sending, 8, 8 * MIB)?;
        sending.end_sending()?;
        io::Result::Ok(sum)
    });
    // … and others that work all the same.
    stream::exchange_at_once(echoes(&enclave, 4), 20, 2 * MIB).expect("nobody is delayed");
    assert!(!sender.is_finished(), "8 MiB cannot all be under way");

    assert_eq!(
        stream::receive(&mut unread).expect("receive"),
        Sum::of_pattern(9, 8 * MIB)
    );
    let second = connect(&enclave, port::LATE).expect("let the enclave read");
    let sent = sender.join().expect("no panic").expect("all is taken");
    let mut late = late;
    assert_eq!(read_line(&mut late).expect("an answer"), sent.to_string());
    drop(second);
}

#[test]
fn a_connection_that_the_parent_drops_in_the_middle_frees_the_enclaves_end() {
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);

    for _ in 0..100 {
        let mut connection = connect(&enclave, port::SOURCE).expect("connect");
        writeln!(connection, "9 {MIB}").expect("ask for data");
        let mut some = [0; 1000];
        connection.read_exact(&mut some).expect("the beginning");
        drop(connection);
    }

    stream::exchange_at_once(echoes(&enclave, 8), 1, MIB).expect("the enclave goes on");
}

/// 1,000 into the enclave, open at once, while another 1,000 come out of it, open at once; each is used. The VMM with at least the
/// former.
fn use_two_thousand_connections(enclave: &Enclave, listener: &PortListener, port: u32) -> Holdings {
    const EACH_WAY: u64 = 1000;
    listener.echo_in_background(EACH_WAY).expect("echo");
    thread::scope(|scope| {
        let out = Order::Exchange {
            to: to_parent(port),
            connections: EACH_WAY,
            bytes: 16 << 10,
        };
        let out = scope.spawn(move || order(enclave, out));
        let into = stream::open_past_a_full_backlog(EACH_WAY, || connect(enclave, port::ECHO));
        let mut into = into.expect("connect");
        for stream in &mut into {
            stream.write_all(&[7; 1 << 10]).expect("send");
        }
        for stream in &mut into {
            let mut echo = [0; 1 << 10];
            stream.read_exact(&mut echo).expect("receive");
            assert_eq!(echo, [7; 1 << 10]);
        }
        assert_eq!(out.join().expect("no panic").expect("an answer"), "exchanged");
        enclave.holdings()
    })
}

/// What the VMM holds once it has as many descriptors as `before` and nothing changes any more.
fn settled(enclave: &Enclave, before: Holdings) -> Holdings {
    poll::until("the connections' end", || {
        let holdings = enclave.holdings();
        thread::sleep(Duration::from_millis(500));
        let is_settled = holdings.descriptors == before.descriptors && holdings == enclave.holdings();
        is_settled.then_some(holdings)
    })
}

#[test]
fn two_thousand_connections_leave_a_vmm_no_larger() {
    const PORT: u32 = 6010;
    descriptors::raise_limit().expect("more descriptors");
    let host = super::host();
    let _world = World::enter();
    let enclave = Launch::of(eifs::of_application("vsock-echo", &[]))
        .with(super::VSOCK)
        .with_memory(512)
        .in_debug_mode()
        .run(&host);
    enclave.console().wait_for("vsock-echo: ready");
    let listener = PortListener::bind(&enclave, PORT).expect("listen for the enclave");
    let before = enclave.holdings();
    // What the allocator keeps, and the tables of the device, have their size after the first time.
    let during = use_two_thousand_connections(&enclave, &listener, PORT);
    let settled = settled(&enclave, before);
    use_two_thousand_connections(&enclave, &listener, PORT);
    let after = self::settled(&enclave, before);
    println!(
        "before {before:?}, with 2,000 connections {during:?}, after them {settled:?}, after as many again {after:?}"
    );
    assert_eq!(after.threads, before.threads);
    let room = 512;
    assert!(
        after.private_kib <= settled.private_kib + room,
        "{settled:?} {after:?}"
    );
    assert!(
        during.private_kib <= before.private_kib + (16 << 10),
        "{before:?} {during:?}"
    );
    assert!(stream::exchange(connect(&enclave, port::ECHO).expect("connect"), 1, MIB).is_ok());
    enclave.terminate();
}

#[test]
fn connections_end_when_the_enclave_does() {
    let host = super::host();
    let _world = World::enter();
    let enclave = echoing(&host);
    let mut open = connect(&enclave, port::ECHO).expect("connect");
    open.write_all(b"ping").expect("send");
    let mut pong = [0; 4];
    open.read_exact(&mut pong).expect("receive");

    let socket = enclave.directory().join("vsock.sock");
    enclave.terminate();

    let end = read_line(&mut open).expect("an end, not a hang");
    assert_eq!(end, "");
    assert!(!socket.exists());
}
