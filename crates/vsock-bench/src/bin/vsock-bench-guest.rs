//! Process 1 of the guest that is measured: what the parent's `vsock-bench` connects to. See the crate for the conversation.

#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Read, Write};
use std::thread;

use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};
use vsock_bench::{MADE, PARENT_CID, READ_BUFFER, Transfer, port, receive, send};

fn main() -> io::Result<()> {
    serve(port::ECHO, echo)?;
    serve(port::SINK, sink)?;
    serve(port::SOURCE, source)?;
    serve(port::GREETER, |_| Ok(()))?;
    let parent = env::var(PARENT_CID).ok().and_then(|cid| cid.parse().ok());
    let parent = parent.ok_or(io::ErrorKind::InvalidInput)?;
    take_orders(parent)
}

/// Gives connections to `port` to `service`, one after the other.
fn serve(port: u32, service: fn(VsockStream) -> io::Result<()>) -> io::Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
    thread::spawn(move || {
        loop {
            let served = listener.accept().and_then(|(stream, _)| service(stream));
            if let Err(error) = served {
                println!("vsock-bench-guest: port {port}: {error}");
            }
        }
    });
    Ok(())
}

fn echo(mut stream: VsockStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? != 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

fn sink(mut stream: VsockStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BUFFER];
    while let Some(transfer) = Transfer::read(&mut stream)? {
        receive(&mut stream, transfer, &mut buffer)?;
        stream.write_all(&[MADE])?;
    }
    Ok(())
}

fn source(mut stream: VsockStream) -> io::Result<()> {
    while let Some(transfer) = Transfer::read(&mut stream)? {
        send(&mut stream, transfer)?;
    }
    Ok(())
}

/// Makes as many connections as each four bytes, little-endian, say.
fn take_orders(parent: u32) -> io::Result<()> {
    let mut control = VsockStream::connect_with_cid_port(parent, port::CONTROL)?;
    loop {
        let mut number = [0; 4];
        control.read_exact(&mut number)?;
        for _ in 0..u32::from_le_bytes(number) {
            let mut stream = VsockStream::connect_with_cid_port(parent, port::CALLS)?;
            if stream.read(&mut [0])? != 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        control.write_all(&[MADE])?;
    }
}
