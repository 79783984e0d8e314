//! Enclave application: runs other programs of its image for the parent, and lends them TCP connections with it.
//!
//! What each port does is said in [`port`]. An enclave has no network but its loopback interface, which this brings up with
//! the image's busybox; TCP connections go over vsock.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use end_to_end_tests::guest::{self, port};
use end_to_end_tests::stream;
use end_to_end_tests::vsock_socket::read_line;
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// The parent, as the enclave addresses it on AWS.
const PARENT: u32 = 3;

/// Between two attempts to reach a program that does not listen yet.
const INTERVAL: Duration = Duration::from_millis(20);

fn main() -> io::Result<()> {
    let loopback = Command::new("/bin/busybox")
        .args(["ip", "link", "set", "lo", "up"])
        .status()?;
    if !loopback.success() {
        return Err(io::Error::other(format!("no loopback interface: {loopback}")));
    }

    let from_enclave = TcpListener::bind((Ipv4Addr::LOCALHOST, port::TCP_TO_PARENT))?;
    let to_parent = move || {
        let (tcp, _) = from_enclave.accept()?;
        let vsock = VsockStream::connect_with_cid_port(PARENT, port::TCP_TO_PARENT.into())?;
        Ok((tcp, vsock))
    };
    serve(to_parent, |(tcp, vsock)| stream::relay(tcp, vsock));
    serve(accept_on(port::TCP_INTO_ENCLAVE.into())?, |vsock| {
        stream::relay(vsock, connected(port::TCP_INTO_ENCLAVE))
    });
    serve(accept_on(port::RUN)?, run);
    println!("toolbox: ready");
    guest::idle();
}

/// What accepts the parent's connections to a vsock port.
fn accept_on(port: u32) -> io::Result<impl FnMut() -> io::Result<VsockStream>> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
    Ok(move || listener.accept().map(|(stream, _)| stream))
}

/// Gives all that `accept` returns to `service`, each in a thread of its own.
fn serve<C: Send + 'static>(
    mut accept: impl FnMut() -> io::Result<C> + Send + 'static,
    service: impl Fn(C) -> io::Result<()> + Copy + Send + 'static,
) {
    thread::spawn(move || {
        loop {
            match accept() {
                Ok(connection) => drop(thread::spawn(move || report(service(connection)))),
                Err(error) => report(Err(error)),
            }
        }
    });
}

fn report(result: io::Result<()>) {
    if let Err(error) = result {
        println!("toolbox: {error}");
    }
}

/// A connection to a program of this enclave, once it listens.
fn connected(port: u16) -> TcpStream {
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(stream) => return stream,
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

fn run(mut stream: VsockStream) -> io::Result<()> {
    let line = read_line(&mut stream)?;
    let mut words = line.split_ascii_whitespace();
    let name = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let output = || stream.as_fd().try_clone_to_owned().map(Stdio::from);
    let status = Command::new(format!("/bin/{name}"))
        .args(words)
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?)
        .status()?;
    writeln!(stream, "{status}")
}
