//! Enclave application: the other end of every vsock test. With the argument `flood` it floods the console as well.
//!
//! What each port does is said in [`port`]. Services run side by side, and so do the connections of one.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::thread;

use end_to_end_tests::descriptors;
use end_to_end_tests::guest::{self, Address, Order, port};
use end_to_end_tests::stream::{self, Stream};
use end_to_end_tests::vsock_socket::read_line;
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

fn main() -> io::Result<()> {
    descriptors::raise_limit()?;
    let late = listen(port::LATE)?;
    thread::spawn(move || {
        loop {
            report("late", receive_late(&late));
        }
    });
    serve(port::SOURCE, send_what_is_asked_for)?;
    serve(port::ORDERS, take_order)?;
    serve(port::ECHO, stream::echo)?;
    println!("vsock-echo: ready");
    if std::env::args().nth(1).as_deref() == Some("flood") {
        guest::flood_console();
    }
    guest::idle();
}

fn listen(port: u32) -> io::Result<VsockListener> {
    VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)
}

/// Gives each connection to `port` a thread that runs `service`.
fn serve(
    port: u32,
    service: impl Fn(VsockStream) -> io::Result<()> + Copy + Send + 'static,
) -> io::Result<()> {
    let listener = listen(port)?;
    thread::spawn(move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => drop(thread::spawn(move || report("connection", service(stream)))),
                Err(error) => report("accept", Err(error)),
            }
        }
    });
    Ok(())
}

fn report(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        println!("vsock-echo: {what}: {error}");
    }
}

fn send_what_is_asked_for(mut stream: VsockStream) -> io::Result<()> {
    let line = read_line(&mut stream)?;
    let numbers = line
        .split_once(' ')
        .and_then(|(seed, bytes)| Some((seed.parse().ok()?, bytes.parse().ok()?)));
    let (seed, bytes) = numbers.ok_or(io::ErrorKind::InvalidInput)?;
    stream::send(&mut stream, seed, bytes)?;
    stream.end_sending()
}

fn receive_late(listener: &VsockListener) -> io::Result<()> {
    let (mut first, _) = listener.accept()?;
    let (_second, _) = listener.accept()?;
    let sum = stream::receive(&mut first)?;
    writeln!(first, "{sum}")
}

fn take_order(mut stream: VsockStream) -> io::Result<()> {
    let line = read_line(&mut stream)?;
    let order = Order::parse(&line).ok_or(io::ErrorKind::InvalidInput)?;
    let answer = carry_out(order).unwrap_or_else(|error| format!("{:?}: {error}", error.kind()));
    writeln!(stream, "{answer}")
}

fn carry_out(order: Order) -> io::Result<String> {
    match order {
        Order::Exchange {
            to,
            connections,
            bytes,
        } => {
            let streams = stream::open_past_a_full_backlog(connections, || connect(to))?;
            stream::exchange_at_once(streams, u64::from(to.port), bytes)?;
            Ok("exchanged".into())
        }
        Order::HalfClose { to } => {
            let mut stream = connect(to)?;
            match stream.end_sending() {
                // The other end has been faster.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                ended => ended?,
            }
            Ok(stream::receive(&mut stream)?.to_string())
        }
        Order::Connect { to } => {
            connect(to)?;
            Ok("connected".into())
        }
    }
}

fn connect(to: Address) -> io::Result<VsockStream> {
    VsockStream::connect_with_cid_port(to.cid, to.port)
}
