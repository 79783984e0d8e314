//! `vsock-server PORT` sends back what each connection sends.

use std::error::Error;
use std::{io, thread};

use vsock::{VMADDR_CID_ANY, VsockListener};

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).ok_or("usage: vsock-server PORT")?;
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port.parse()?)?;
    println!("listening");
    loop {
        let (stream, caller) = listener.accept()?;
        println!("CID {} has connected", caller.cid());
        thread::spawn(move || io::copy(&mut &stream, &mut &stream));
    }
}
