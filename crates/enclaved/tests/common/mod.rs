//! What more than one test program needs.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A socket that takes a minute to close, unless the second one goes before.
pub(crate) fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (never_reads, _) = listener.accept().unwrap();
    slow.set_nonblocking(true).unwrap();
    while slow.write(&[0; 4096]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&slow, Some(Duration::from_mins(1))).unwrap();
    (slow, never_reads)
}
