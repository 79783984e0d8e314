// parent: --cpus 4 --memory 2G --hugepages-2m 256 -- --test-threads 1
//! Streams between an enclave and its parent, through the Unix sockets in the enclave's directory.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

mod vsock_cases;

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use end_to_end_tests::guest::port;
use end_to_end_tests::vsock_socket::{connect, read_line};
use end_to_end_tests::{Host, World, stream};

use vsock_cases::{MIB, echoing};

/// What its enclaves are started with.
const VSOCK: &[&str] = &["--vsock", "unix"];

fn host() -> Host {
    Host::of_the_parent()
}

#[test]
fn nonsense_on_the_socket_is_dropped_and_harms_no_other_connection() {
    let _world = World::enter();
    let host = host();
    let enclave = echoing(&host);
    let socket = enclave.directory().join("vsock.sock");

    let long = "C".repeat(1 << 16);
    for nonsense in [
        "\n",
        "CONNECT\n",
        "CONNECT -1\n",
        "CONNECT 4294967296\n",
        "CONNECT 7 7\n",
        &long,
    ] {
        let mut stream = UnixStream::connect(&socket).expect("connect");
        // The other end may close before it has read everything.
        let _ = stream.write_all(nonsense.as_bytes());
        let answer = read_line(&mut stream).unwrap_or_default();
        assert_eq!(answer, "", "{nonsense:.20}");
    }
    // One that says nothing is no obstacle either.
    let silent = UnixStream::connect(&socket).expect("connect");
    assert!(stream::exchange(connect(&enclave, port::ECHO).expect("connect"), 3, MIB).is_ok());
    silent.shutdown(Shutdown::Both).expect("shut down");
}
