//! The whole device with a guest in this process and real Unix sockets: one thread is guest and device, others are the
//! applications on the parent.

mod guest;
mod order;

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use event_manager::EventManager;
use proptest::prelude::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;
use vsock_device::{HOST_CID, Header, Operation, PARENT_CID, SOCKET_STREAM, ShutdownFlags};

use guest::Guest;

use super::{Endpoints, UnixVsockConfig, open};
use crate::vsock::driver::{self, Descriptor, RX, TX, WRITE};

type Driver = driver::Driver<Endpoints>;

const GUEST_CID: u32 = 16;
const MIB: usize = 1 << 20;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A device whose sockets are in `directory`, not yet initialised.
fn driver(directory: &Path) -> Driver {
    let config = UnixVsockConfig {
        guest_cid: GUEST_CID,
        listener: UnixListener::bind(directory.join("vsock.sock")).unwrap(),
        port_socket_prefix: directory.join("vsock.sock_"),
    };
    Driver::new(driver::guest_memory(), open(config).unwrap())
}

fn listen(directory: &Path, port: u32) -> UnixListener {
    UnixListener::bind(directory.join(format!("vsock.sock_{port}"))).unwrap()
}

/// Bytes that differ from stream to stream and hardly repeat.
fn bytes(seed: usize, length: usize) -> Vec<u8> {
    let mut state = u64::try_from(seed).unwrap() * 0x9e37_79b9 + 1;
    let step = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(step).collect()
}

/// A client on the parent that has asked for `port` and been accepted.
fn connect_to_guest(directory: &Path, port: u32) -> UnixStream {
    let mut stream = UnixStream::connect(directory.join("vsock.sock")).unwrap();
    writeln!(stream, "CONNECT {port}").unwrap();
    let answer = read_line(&mut stream);
    let host_port: u32 = answer.strip_prefix("OK ").unwrap().trim_end().parse().unwrap();
    assert!(host_port >= 1024);
    stream
}

fn read_line(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") && stream.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Waits for a thread while guest and device run.
fn join<T>(guest: &mut Guest, thread: JoinHandle<T>) -> T {
    guest.run_until("the application has ended", |_| thread.is_finished());
    thread.join().unwrap()
}

/// The guest has a connection to `port` of the parent, where `listener` listens.
fn connected(guest: &mut Guest, listener: &UnixListener, ports: guest::Ports) -> UnixStream {
    guest.connect(ports);
    guest.run_until("the parent has accepted", |guest| guest.socket(ports).established);
    listener.accept().unwrap().0
}

#[test]
fn a_guest_reaches_its_parent_by_either_cid() {
    for cid in [PARENT_CID, HOST_CID] {
        let directory = directory();
        let listener = listen(directory.path(), 9000);
        let mut guest = Guest::new(directory.path());
        guest.parent_cid = cid;
        let ports = (1024, 9000);
        let mut stream = connected(&mut guest, &listener, ports);

        // The heartbeat of an enclave.
        guest.write(ports, &[0xb7]);
        let echo = thread::spawn(move || {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&byte).unwrap();
            stream
        });
        guest.run_until("the byte is back", |guest| {
            !guest.socket(ports).received.is_empty()
        });
        assert_eq!(guest.read(ports), [0xb7]);
        drop(echo.join().unwrap());
        guest.run_until("the end is seen", |guest| guest.at_end(ports));
    }
}

#[test]
fn a_client_reaches_the_guest_and_may_write_before_it_is_accepted() {
    let directory = directory();
    let mut guest = Guest::new(directory.path());
    guest.listening.insert(5000);
    let mut stream = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
    stream.write_all(b"CONNECT 5000\nhello").unwrap();
    guest.run_until("the guest has all", |guest| {
        guest.sockets.values().any(|socket| socket.received.len() == 5)
    });
    let ports = *guest.sockets.keys().next().unwrap();
    assert_eq!(guest.read(ports), b"hello");
    assert_eq!(read_line(&mut stream), format!("OK {}\n", ports.1));

    guest.write(ports, b"world");
    guest.settle();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"world");
}

#[test]
fn a_line_may_come_in_pieces() {
    let directory = directory();
    let mut guest = Guest::new(directory.path());
    guest.listening.insert(5000);
    let mut stream = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
    for piece in ["CON", "NECT 5", "000", "\nx"] {
        stream.write_all(piece.as_bytes()).unwrap();
        guest.settle();
    }
    assert!(read_line(&mut stream).starts_with("OK "));
    let ports = *guest.sockets.keys().next().unwrap();
    assert_eq!(guest.read(ports), b"x");
}

#[test]
fn clients_that_say_something_else_are_disconnected() {
    let directory = directory();
    let mut guest = Guest::new(directory.path());
    guest.listening.insert(5000);
    let long = "CONNECT ".to_owned() + &"0".repeat(100);
    for line in [
        "GET / HTTP/1.1\r\n",
        "CONNECT\n",
        "CONNECT 4294967296\n",
        "CONNECT x\n",
        "\n",
        &long,
    ] {
        let mut stream = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        guest.settle();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{line:?} was answered: {other:?} {rest:?}"),
        }
    }
    // Gone before, in the middle of, and after the line.
    for line in ["", "CONN", "CONNECT 5000\n"] {
        let mut stream = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        drop(stream);
        guest.settle();
    }
    let thread = thread::spawn({
        let directory = directory.path().to_owned();
        move || connect_to_guest(&directory, 5000)
    });
    join(&mut guest, thread);
}

/// More clients than one turn accepts, all of them silent, do not keep one that speaks from being heard.
#[test]
fn silent_clients_do_not_hold_up_others() {
    let directory = directory();
    let mut guest = Guest::new(directory.path());
    guest.listening.insert(5000);
    let connect = || UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
    let silent: Vec<_> = (0..100).map(|_| connect()).collect();
    guest.settle();
    let mut stream = connect();
    stream.write_all(b"CONNECT 5000\n").unwrap();
    guest.settle();
    stream.set_nonblocking(true).unwrap();
    assert!(read_line(&mut stream).starts_with("OK "));
    drop(silent);
}

#[test]
fn a_port_where_nobody_listens_is_refused_both_ways() {
    let directory = directory();
    let mut guest = Guest::new(directory.path());
    guest.connect((1024, 9000));
    guest.run_until("the guest is refused", |guest| guest.socket((1024, 9000)).closed);

    // A socket file that nobody serves.
    drop(listen(directory.path(), 9001));
    guest.connect((1025, 9001));
    guest.run_until("the guest is refused", |guest| guest.socket((1025, 9001)).closed);

    let mut stream = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
    stream.write_all(b"CONNECT 5000\n").unwrap();
    guest.settle();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client is disconnected");
}

/// An application on the parent that sends back what it gets, until the end.
fn echo(mut stream: UnixStream) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return stream.shutdown(Shutdown::Write).unwrap(),
                length => stream.write_all(&buffer[..length]).unwrap(),
            }
        }
    })
}

/// The guest writes `payload` to each of `streams` and reads it back, half-closing in between.
fn exchange(guest: &mut Guest, streams: &[(guest::Ports, Vec<u8>)]) {
    let mut back: Vec<Vec<u8>> = vec![Vec::new(); streams.len()];
    for (ports, payload) in streams {
        guest.write(*ports, payload);
    }
    let mut ended = vec![false; streams.len()];
    guest.run_until("everything is back", |guest| {
        let mut all = true;
        for (index, (ports, payload)) in streams.iter().enumerate() {
            if guest.socket(*ports).unsent.is_empty() && !ended[index] {
                ended[index] = true;
                guest.shut_down(*ports, ShutdownFlags::SEND);
            }
            back[index].extend(guest.read(*ports));
            all &= back[index].len() >= payload.len() && guest.at_end(*ports);
        }
        all
    });
    for ((ports, payload), back) in streams.iter().zip(&back) {
        assert!(back == payload, "stream {ports:?} came back changed");
    }
}

#[test]
fn sixty_four_connections_each_way_at_once() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    guest.listening.insert(5000);

    let server = thread::spawn(move || {
        (0..64)
            .map(|_| echo(listener.accept().unwrap().0))
            .collect::<Vec<_>>()
    });
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let directory = directory.path().to_owned();
            thread::spawn(move || echo(connect_to_guest(&directory, 5000)))
        })
        .collect();
    for port in 0..64 {
        guest.connect((1024 + port, 9000));
    }
    guest.run_until("all are connected", |guest| {
        guest.sockets.len() == 128 && guest.sockets.values().all(|socket| socket.established)
    });
    let streams: Vec<_> = guest
        .sockets
        .keys()
        .enumerate()
        .map(|(seed, ports)| (*ports, bytes(seed, 40_000 + seed * 7)))
        .collect();
    exchange(&mut guest, &streams);
    for thread in server.join().unwrap() {
        join(&mut guest, thread);
    }
    for thread in clients {
        let thread = join(&mut guest, thread);
        join(&mut guest, thread);
    }
}

#[test]
fn connections_wait_for_a_listener_that_is_busy() {
    let directory = directory();
    let address = rustix::net::SocketAddrUnix::new(directory.path().join("vsock.sock_9000")).unwrap();
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket(family, kind, None).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = UnixListener::from(socket);
    let mut guest = Guest::new(directory.path());

    for port in 0..64 {
        guest.connect((1024 + port, 9000));
    }
    guest.run_until("the backlog is full", |guest| {
        guest.sockets.values().any(|socket| socket.established)
    });
    let server = thread::spawn(move || (0..64).map(|_| listener.accept().unwrap().0).collect::<Vec<_>>());
    guest.run_until("all are connected", |guest| {
        guest.sockets.values().all(|socket| socket.established)
    });
    assert_eq!(join(&mut guest, server).len(), 64);
}

#[test]
fn large_transfers_in_any_cut() {
    // Header and data apart, together, the header in pieces, data in many pieces, empty descriptors.
    for cuts in [
        &[44][..],
        &[],
        &[10, 30, 4],
        &[1, 43, 1, 4096, 4096, 0, 100],
        &[44, 0, 5, 0],
    ] {
        let directory = directory();
        let listener = listen(directory.path(), 9000);
        let mut guest = Guest::new(directory.path());
        guest.cuts = cuts;
        let stream = connected(&mut guest, &listener, (1024, 9000));
        let thread = echo(stream);
        exchange(&mut guest, &[((1024, 9000), bytes(1, 4 * MIB))]);
        join(&mut guest, thread);
    }
}

#[test]
fn drivers_without_event_idx_or_with_split_receive_buffers_work_too() {
    for split in [false, true] {
        let directory = directory();
        let listener = listen(directory.path(), 9000);
        let mut driver = driver(directory.path()).without_event_idx();
        driver.split_receive_buffers = split;
        let mut guest = Guest::with_driver(driver);
        let stream = connected(&mut guest, &listener, (1024, 9000));
        let thread = echo(stream);
        exchange(&mut guest, &[((1024, 9000), bytes(1, MIB))]);
        join(&mut guest, thread);
    }
}

#[test]
fn a_slow_reader_stops_its_own_stream_alone() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    let (slow, fast) = ((1024, 9000), (1025, 9000));
    let mut slow_stream = connected(&mut guest, &listener, slow);
    let payload = bytes(1, 4 * MIB);
    guest.write(slow, &payload);
    guest.settle();
    let stuck = guest.socket(slow).unsent.len();
    assert!(stuck > 0, "more was taken than socket and window hold");

    let fast_stream = connected(&mut guest, &listener, fast);
    let thread = echo(fast_stream);
    exchange(&mut guest, &[(fast, bytes(2, 2 * MIB))]);
    join(&mut guest, thread);
    assert_eq!(guest.socket(slow).unsent.len(), stuck, "nobody has read");

    let reader = thread::spawn(move || {
        let mut all = vec![0; 4 * MIB];
        slow_stream.read_exact(&mut all).unwrap();
        all
    });
    assert!(join(&mut guest, reader) == payload);
}

#[test]
fn a_guest_that_does_not_read_stops_its_own_stream_alone() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    let (slow, fast) = ((1024, 9000), (1025, 9000));
    let mut slow_stream = connected(&mut guest, &listener, slow);
    let payload = bytes(1, 2 * MIB);
    let writer = thread::spawn({
        let payload = payload.clone();
        move || slow_stream.write_all(&payload).unwrap()
    });
    guest.run_until("the guest's buffer is full", |guest| {
        guest.socket(slow).received.len() == 256 << 10
    });
    let fast_stream = connected(&mut guest, &listener, fast);
    let thread = echo(fast_stream);
    exchange(&mut guest, &[(fast, bytes(2, MIB))]);
    join(&mut guest, thread);

    let mut all = Vec::new();
    guest.run_until("all is read", |guest| {
        all.extend(guest.read(slow));
        all.len() == payload.len()
    });
    assert!(all == payload);
    join(&mut guest, writer);
}

#[test]
fn without_receive_buffers_the_device_sleeps_and_then_goes_on() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    let ports = (1024, 9000);
    let mut stream = connected(&mut guest, &listener, ports);
    guest.refill = false;
    let payload = bytes(1, 2 * MIB);
    let writer = thread::spawn({
        let payload = payload.clone();
        move || {
            stream.write_all(&payload).unwrap();
            stream
        }
    });
    // The guest reads all the time, so that it is the buffers that run out and not the credit.
    let mut all = Vec::new();
    while guest.step(50) {
        all.extend(guest.read(ports));
    }
    assert!(all.len() > MIB / 2 && all.len() < payload.len(), "{}", all.len());
    assert_eq!(guest.driver.turn(50), 0, "the device spins");

    guest.refill = true;
    let buffers = guest.driver.buffers();
    guest.driver.offer_buffers(0..buffers);
    guest.run_until("all has arrived", |guest| {
        all.extend(guest.read(ports));
        all.len() == payload.len()
    });
    assert!(all == payload);
    drop(join(&mut guest, writer));
}

/// A read ends where descriptors were sent along, though there is more to read.
#[test]
fn descriptors_sent_along_are_dropped_and_hold_nothing_up() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    let ports = (1024, 9000);
    let mut stream = connected(&mut guest, &listener, ports);
    guest.settle();
    let descriptors = [stream.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));

    let first = [IoSlice::new(b"first ")];
    sendmsg(&stream, &first, &mut ancillary, SendFlags::empty()).unwrap();
    stream.write_all(b"second").unwrap();
    guest.settle();

    assert_eq!(guest.read(ports), b"first second");
}

#[test]
fn either_side_may_end_its_direction_first() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());

    // The parent ends first; the guest still sends.
    let ports = (1024, 9000);
    let mut stream = connected(&mut guest, &listener, ports);
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    guest.run_until("the guest sees the end", |guest| guest.at_end(ports));
    assert_eq!(guest.read(ports), b"question");
    assert!(!guest.socket(ports).closed);
    guest.write(ports, b"answer");
    guest.settle();
    guest.shut_down(ports, ShutdownFlags::BOTH);
    guest.run_until("the guest is done", |guest| guest.socket(ports).closed);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");

    // The guest reads no more; the parent is told, and may still read.
    let ports = (1025, 9000);
    let mut stream = connected(&mut guest, &listener, ports);
    guest.shut_down(ports, ShutdownFlags::RECEIVE);
    guest.settle();
    assert_eq!(stream.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    guest.write(ports, b"still here");
    guest.settle();
    let mut text = [0; 10];
    stream.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still here");
    drop(stream);
    guest.run_until("the guest hears that nobody is there", |guest| {
        guest.socket(ports).closed
    });
}

#[test]
fn what_the_guest_wrote_before_it_closed_or_reset_arrives() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    for (port, abrupt) in [(1024, false), (1025, true)] {
        let ports = (port, 9000);
        let mut stream = connected(&mut guest, &listener, ports);
        // More than the socket takes, less than socket and window.
        let payload = bytes(1, 400 << 10);
        guest.write(ports, &payload);
        guest.run_until("all is sent", |guest| guest.socket(ports).unsent.is_empty());
        if abrupt {
            guest.reset(ports);
        } else {
            guest.shut_down(ports, ShutdownFlags::BOTH);
        }
        guest.settle();
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        });
        assert!(join(&mut guest, reader) == payload);
    }
}

#[test]
fn a_peer_that_vanishes_ends_the_guests_connection() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    for (port, unread) in [(1024, 0), (1025, 10), (1026, MIB)] {
        let ports = (port, 9000);
        let mut stream = connected(&mut guest, &listener, ports);
        guest.write(ports, &bytes(1, unread));
        guest.settle();
        stream.write_all(b"farewell").unwrap();
        drop(stream);
        guest.run_until("the guest hears of it", |guest| {
            guest.socket(ports).peer_shutdown == ShutdownFlags::BOTH || guest.socket(ports).closed
        });
        assert_eq!(guest.read(ports), b"farewell");
    }
}

#[test]
fn reset_closes_every_stream_and_the_device_is_as_new() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    for round in 0..3 {
        let mut streams: Vec<_> = (0..10)
            .map(|port| connected(&mut guest, &listener, (1024 + port, 9000)))
            .collect();
        guest.write((1024, 9000), &bytes(1, 2 * MIB));
        guest.settle();
        let mut waiting = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
        waiting.write_all(b"CONN").unwrap();
        guest.settle();

        guest.driver.reset();
        for stream in &mut streams[1..] {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "round {round}");
        }
        assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
        assert_eq!(guest.driver.turn(20), 0, "an inactive device sleeps");
        guest.boot();
    }
    let thread = echo(connected(&mut guest, &listener, (1, 9000)));
    exchange(&mut guest, &[((1, 9000), bytes(2, MIB))]);
    join(&mut guest, thread);
}

/// More connections than there may be at once: all that ended have been forgotten.
#[test]
fn thousands_of_connections_come_and_go() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    for round in 0..50 {
        let ports: Vec<_> = (0..100).map(|port| (1024 + round * 100 + port, 9000)).collect();
        for ports in &ports {
            guest.connect(*ports);
        }
        guest.run_until("all are connected", |guest| {
            guest.sockets.values().all(|socket| socket.established)
        });
        let streams: Vec<_> = ports.iter().map(|_| listener.accept().unwrap().0).collect();
        for (index, mut stream) in streams.into_iter().enumerate() {
            stream.write_all(b"x").unwrap();
            // Half of them end here, half in the guest.
            if index % 2 == 0 {
                drop(stream);
            } else {
                guest.shut_down(ports[index], ShutdownFlags::BOTH);
            }
        }
        guest.run_until("all are over", |guest| {
            guest
                .sockets
                .keys()
                .copied()
                .collect::<Vec<_>>()
                .iter()
                .for_each(|ports| drop(guest.read(*ports)));
            guest
                .sockets
                .values()
                .all(|socket| socket.closed || socket.peer_shutdown == ShutdownFlags::BOTH)
        });
        for ports in &ports {
            if !guest.socket(*ports).closed {
                guest.reset(*ports);
            }
        }
        guest.settle();
        guest.sockets.clear();
    }
}

/// As in the VMM: the device has a thread of its own, and the guest resets it whenever it likes.
#[test]
fn resets_and_turns_on_different_threads() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut driver = driver(directory.path());
    let mut events = std::mem::replace(&mut driver.events, EventManager::new().unwrap());
    let running = Arc::new(AtomicBool::new(true));
    let device = thread::spawn({
        let running = Arc::clone(&running);
        move || {
            while running.load(Ordering::Relaxed) {
                events.run_with_timeout(10).unwrap();
            }
        }
    });
    let mut guest = Guest::with_driver(driver);
    for round in 0..30 {
        let threads: Vec<_> = (0..5)
            .map(|port| {
                let mut stream = connected(&mut guest, &listener, (1024 + port, 9000));
                // Ends when the reset closes the stream, whatever it was doing.
                thread::spawn(move || {
                    let mut buffer = vec![0; 4096];
                    while stream.write_all(&buffer).is_ok()
                        && stream.read(&mut buffer).is_ok_and(|read| read > 0)
                    {}
                })
            })
            .collect();
        for port in 0..5 {
            guest.write((1024 + port, 9000), &bytes(round, MIB));
        }
        for _ in 0..round {
            guest.step(1);
        }
        guest.boot();
        for thread in threads {
            thread.join().unwrap();
        }
    }
    let thread = echo(connected(&mut guest, &listener, (1, 9000)));
    exchange(&mut guest, &[((1, 9000), bytes(2, MIB))]);
    join(&mut guest, thread);
    running.store(false, Ordering::Relaxed);
    device.join().unwrap();
}

#[test]
fn clients_that_come_before_the_driver_wait_for_it() {
    let directory = directory();
    let mut driver = driver(directory.path());
    let mut stream = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
    stream.write_all(b"CONNECT 5000\n").unwrap();
    assert_eq!(driver.turn(20), 0);
    let mut guest = Guest::with_driver(driver);
    guest.listening.insert(5000);
    guest.settle();
    assert!(read_line(&mut stream).starts_with("OK "));
}

#[test]
fn one_interrupt_for_a_turn_and_none_for_a_driver_that_polls() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::with_driver(driver(directory.path()).without_event_idx());
    let mut stream = connected(&mut guest, &listener, (1024, 9000));
    guest.settle();
    let _ = guest.driver.irqfd.read();

    stream.write_all(&bytes(1, 100_000)).unwrap();
    assert!(guest.driver.turn(1000) > 0);
    assert_eq!(guest.driver.irqfd.read().unwrap(), 1);
    let used = std::iter::from_fn(|| guest.driver.receive(true)).count();
    assert!(used > 10, "one turn fills many buffers");
}

#[test]
fn configuration_space_holds_the_cid() {
    let directory = directory();
    let driver = driver(directory.path());
    let mut cid = [0xff; 8];
    driver.transport.read(0x100, &mut cid);
    assert_eq!(u64::from_le_bytes(cid), u64::from(GUEST_CID));
    assert_eq!(driver.read(8), 19);
}

#[test]
fn a_broken_ring_stops_the_device_until_it_is_reset() {
    for queue in [RX, TX] {
        let directory = directory();
        let listener = listen(directory.path(), 9000);
        let mut guest = Guest::new(directory.path());
        let mut stream = connected(&mut guest, &listener, (1024, 9000));
        guest.settle();
        guest.driver.set_available_index(queue, 30_000);
        guest.driver.write(0x50, queue);
        // The index is looked at when the buffers from before it are used up.
        for _ in 0..=guest.driver.buffers() {
            if guest.driver.status() == 0xf {
                stream.write_all(b"x").unwrap();
                guest.driver.turn(1000);
            }
        }
        assert_eq!(guest.driver.status(), 0x4f);
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "its streams are closed");
        guest.boot();
        let thread = echo(connected(&mut guest, &listener, (1025, 9000)));
        exchange(&mut guest, &[((1025, 9000), bytes(2, 10_000))]);
        join(&mut guest, thread);
    }
}

#[test]
fn receive_buffers_too_small_for_a_packet_are_returned_empty() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut driver = driver(directory.path());
    driver.initialise();
    // Too small, not writable, outside memory; then a good one.
    driver.describe(
        RX,
        0,
        Descriptor {
            address: 0x10_0000,
            length: 44,
            flags: WRITE,
            next: 0,
        },
    );
    driver.describe(
        RX,
        1,
        Descriptor {
            address: 0x10_0000,
            length: 4096,
            flags: 0,
            next: 0,
        },
    );
    driver.describe(
        RX,
        2,
        Descriptor {
            address: u64::MAX - 10,
            length: 4096,
            flags: WRITE,
            next: 0,
        },
    );
    driver.describe(
        RX,
        3,
        Descriptor {
            address: 0x10_3000,
            length: 4096,
            flags: WRITE,
            next: 0,
        },
    );
    for head in 0..4 {
        driver.make_available(RX, head);
    }
    let request = Header {
        src_cid: u64::from(GUEST_CID),
        dst_cid: PARENT_CID,
        src_port: 1024,
        dst_port: 9000,
        len: 0,
        socket_type: SOCKET_STREAM,
        operation: Operation::Request.to_wire(),
        flags: 0,
        buf_alloc: 1000,
        fwd_cnt: 0,
    };
    driver.transmit(&request, &[], &[44]);
    while driver.turn(20) > 0 {}
    listener.accept().unwrap();
    let used: Vec<_> = std::iter::from_fn(|| driver.take_used(RX)).collect();
    assert_eq!(used, [(0, 0), (1, 0), (2, 0), (3, 44)]);
}

/// Bytes on the transmit queue that were never a packet, or almost.
fn any_packet() -> impl Strategy<Value = (Vec<u8>, Vec<u32>)> {
    let header = (
        prop_oneof![9 => Just(u64::from(GUEST_CID)), 1 => any::<u64>()],
        prop_oneof![9 => Just(PARENT_CID), 1 => any::<u64>()],
        (1_u32..20, prop_oneof![Just(9000_u32), Just(9001), any::<u32>()]),
        (prop_oneof![0_u32..100, any::<u32>()], 0_u16..9),
        (any::<u32>(), any::<u32>(), any::<u32>()),
    )
        .prop_map(
            |(src_cid, dst_cid, (src_port, dst_port), (len, operation), (flags, buf_alloc, fwd_cnt))| {
                Header {
                    src_cid,
                    dst_cid,
                    src_port,
                    dst_port,
                    len,
                    socket_type: SOCKET_STREAM,
                    operation,
                    flags,
                    buf_alloc,
                    fwd_cnt,
                }
            },
        );
    let packet = (header, 0_usize..100).prop_map(|(header, length)| {
        let mut packet = header.encode().to_vec();
        packet.extend(vec![0x5a; length]);
        packet
    });
    let any_bytes = prop::collection::vec(any::<u8>(), 1..200);
    (
        prop_oneof![9 => packet, 1 => any_bytes],
        prop::collection::vec(0_u32..60, 0..8),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever else the guest sends, a connection that behaves goes on, and no bytes of others get into it.
    #[test]
    fn hostile_packets_do_not_touch_a_connection(packets in prop::collection::vec(any_packet(), 1..80)) {
        let directory = directory();
        let listener = listen(directory.path(), 9000);
        let mut guest = Guest::new(directory.path());
        let ports = (1000, 9000);
        let mut stream = connected(&mut guest, &listener, ports);
        for (packet, cuts) in &packets {
            while !guest.driver.transmit_bytes(packet, cuts) {
                guest.driver.turn(0);
            }
            guest.driver.turn(0);
            while guest.driver.receive(true).is_some() {}
        }
        prop_assert_eq!(guest.driver.status(), 0xf);
        guest.write(ports, b"still alive");
        guest.run_until("it is sent", |guest| guest.socket(ports).unsent.is_empty());
        guest.step(10);
        let mut text = [0; 11];
        stream.read_exact(&mut text).unwrap();
        prop_assert_eq!(&text, b"still alive");
        stream.write_all(b"so am I").unwrap();
        guest.run_until("it has arrived", |guest| guest.socket(ports).received.len() == 7);
    }

    /// Descriptors and rings full of rubbish: no panic, no hang, and after a reset all is well.
    #[test]
    fn hostile_rings_end_with_a_reset_at_worst(
        descriptors in prop::collection::vec((0_u32..3, 0_u16..256, any::<u64>(), any::<u32>(), 0_u16..8, 0_u16..300), 0..60),
        small in prop::collection::vec((0_u32..3, 0_u16..256, 0_u64..0x50_0000, 0_u32..0x1_0000, 0_u16..8, 0_u16..256), 0..60),
        heads in prop::collection::vec((0_u32..2, 0_u16..300), 1..60),
    ) {
        let directory = directory();
        let listener = listen(directory.path(), 9000);
        let mut guest = Guest::new(directory.path());
        let mut stream = connected(&mut guest, &listener, (1000, 9000));
        stream.write_all(&bytes(1, 50_000)).unwrap();
        for (queue, index, address, length, flags, next) in descriptors.into_iter().chain(small) {
            guest.driver.describe(queue, index, Descriptor { address, length, flags, next });
        }
        for (queue, head) in heads {
            guest.driver.make_available(queue, head);
            guest.driver.write(0x50, queue);
            guest.driver.turn(0);
        }
        guest.boot();
        // The rings may have repeated the guest's own request, twice even: then 9000 has connections more to accept.
        let listener = listen(directory.path(), 9001);
        let thread = echo(connected(&mut guest, &listener, (1001, 9001)));
        exchange(&mut guest, &[((1001, 9001), bytes(2, 10_000))]);
        join(&mut guest, thread);
    }
}
