//! `tokio-vsock-server PORT` sends back what each connection sends.

use std::error::Error;

use tokio::io;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).ok_or("usage: tokio-vsock-server PORT")?;
    let address = VsockAddr::new(VMADDR_CID_ANY, port.parse()?);
    let listener = VsockListener::bind(address)?;
    println!("listening");
    loop {
        let (stream, caller) = listener.accept().await?;
        println!("CID {} has connected", caller.cid());
        tokio::spawn(async move {
            let (mut receiving, mut sending) = stream.into_split();
            io::copy(&mut receiving, &mut sending).await
        });
    }
}
