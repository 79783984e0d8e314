//! `vsock-client CID PORT TEXT` sends a text and prints what comes back.

use std::error::Error;
use std::io::{Read, Write};
use std::net::Shutdown;

use vsock::VsockStream;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, cid, port, text] = words.as_slice() else {
        return Err("usage: vsock-client CID PORT TEXT".into());
    };
    let mut stream = VsockStream::connect_with_cid_port(cid.parse()?, port.parse()?)?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    Ok(())
}
