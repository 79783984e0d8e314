//! Enclave application to be the kernel's `/init`: sends the heartbeat, waits for its answer, and ends, which makes the
//! kernel of a booted enclave panic.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use vsock::VsockStream;

/// CID, port and byte of AWS's protocol, which the product has its own constants for.
const PARENT: (u32, u32) = (3, 9000);
const BYTE: [u8; 1] = [0xb7];

fn main() -> io::Result<()> {
    let mut stream = VsockStream::connect_with_cid_port(PARENT.0, PARENT.1)?;
    stream.write_all(&BYTE)?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    println!("heartbeat-then-exit: answered {answer:#04x?}");
    Ok(())
}
