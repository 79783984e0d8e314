// parent: --cpus 6 --memory 2G --hugepages-2m 256 -- --test-threads 1 --nocapture
// only when named
//! What takes too long for every day: 10 GiB through one enclave's vsock, with each backend, every byte checked, beside a reader
//! that does not read. Its VMM must be as large in the end as in the beginning.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use end_to_end_tests::guest::port;
use end_to_end_tests::stream::{self, Sum};
use end_to_end_tests::vsock_socket::connect;
use end_to_end_tests::{Enclave, Holdings, Host, Launch, World, eifs};

const GIB: u64 = 1 << 30;

/// What goes into the enclave, and comes back.
const EACH_WAY: u64 = 5 * GIB;

const CONNECTIONS: u64 = 8;

/// How often the VMM is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// What the VMM may take more at one moment than at another, in KiB: what full sockets did not take.
const ROOM: u64 = 4 << 10;

#[test]
fn ten_gibibytes_over_the_kernel() {
    ten_gibibytes("kernel");
}

#[test]
fn ten_gibibytes_over_unix_sockets() {
    ten_gibibytes("unix");
}

fn ten_gibibytes(backend: &str) {
    let _world = World::enter();
    let enclave = Launch::of(eifs::of_application("vsock-echo", &[]))
        .with(&["--vsock", backend])
        .in_debug_mode()
        .run(&Host::of_the_parent());
    enclave.console().wait_for("vsock-echo: ready");
    let mut unread = connect(&enclave, port::SOURCE).expect("connect");
    writeln!(unread, "9 {GIB}").expect("ask for data");

    let start = Instant::now();
    let watched = thread::scope(|scope| {
        let exchange = scope.spawn(|| {
            let streams = stream::open(CONNECTIONS, || connect(&enclave, port::ECHO)).expect("connect");
            stream::exchange_at_once(streams, 1, EACH_WAY / CONNECTIONS)
        });
        let mut watched = vec![enclave.holdings()];
        while !exchange.is_finished() {
            thread::sleep(INTERVAL);
            watched.push(enclave.holdings());
        }
        exchange.join().expect("no panic").expect("the same back");
        watched
    });
    let seconds = start.elapsed().as_secs();
    assert_eq!(
        stream::receive(&mut unread).expect("receive"),
        Sum::of_pattern(9, GIB)
    );
    check(&enclave, backend, seconds, &watched);
    enclave.terminate();
}

fn check(enclave: &Enclave, backend: &str, seconds: u64, watched: &[Holdings]) {
    let memory = || watched.iter().map(|holdings| holdings.private_kib);
    let (least, most) = (memory().min().unwrap_or(0), memory().max().unwrap_or(0));
    let after = enclave.holdings();
    println!(
        "{backend}: {EACH_WAY} bytes each way in {seconds} s; VMM between {least} and {most} KiB, then {} KiB, {} descriptors",
        after.private_kib, after.descriptors
    );
    assert!(most <= least + ROOM, "{watched:?}");
    assert!(after.private_kib <= least + ROOM, "{after:?}");
}
