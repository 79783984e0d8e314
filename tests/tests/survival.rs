// parent: --cpus 4 --memory 2G --hugepages-2m 256 --no-daemon -- --test-threads 1 --nocapture
//! What flows through an enclave's vsock flows on, whatever becomes of the daemon.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use end_to_end_tests::guest::port;
use end_to_end_tests::stream::{self, Stream, Sum};
use end_to_end_tests::vsock_socket::connect;
use end_to_end_tests::{Enclave, Launch, OwnDaemon, World, eifs, poll};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;

fn echoing() -> Launch {
    Launch::of(eifs::of_application("vsock-echo", &[])).with_memory(128)
}

/// A connection to an enclave's echo service, which is up soon after the enclave.
fn echo_of(enclave: &Enclave) -> UnixStream {
    poll::until("the echo service", || connect(enclave, port::ECHO).ok())
}

#[test]
fn a_gibibyte_flows_on_while_the_daemon_is_killed_and_replaced() {
    const SEED: u64 = 77;
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let enclave = echoing().run(daemon.host());
    let stream = echo_of(&enclave);
    let mut receiving = stream.another().expect("another handle");
    let sender = thread::spawn(move || {
        let mut sending = stream;
        let sent = stream::send(&mut sending, SEED, 1024 * MIB)?;
        sending.end_sending()?;
        std::io::Result::Ok(sent)
    });
    let receiver = thread::spawn(move || stream::receive(&mut receiving));

    let mut kills = 0;
    while !receiver.is_finished() {
        thread::sleep(Duration::from_secs(2));
        daemon.end_with(Signal::KILL);
        kills += 1;
        thread::sleep(Duration::from_millis(500));
        daemon.start_next();
    }

    let sent = sender.join().expect("no panic").expect("all is sent");
    let received = receiver.join().expect("no panic").expect("all is received");
    println!("{received} sent and received, the daemon killed {kills} times meanwhile");
    assert!(kills > 1);
    assert_eq!(sent, Sum::of_pattern(SEED, 1024 * MIB));
    assert_eq!(received, sent);
    enclave.terminate();
}
