//! `tokio-vsock-client CID PORT TEXT` sends a text and prints what comes back.

use std::error::Error;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_vsock::{VsockAddr, VsockStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().collect();
    let [_, cid, port, text] = words.as_slice() else {
        return Err("usage: tokio-vsock-client CID PORT TEXT".into());
    };
    let address = VsockAddr::new(cid.parse()?, port.parse()?);
    let mut stream = VsockStream::connect(address).await?;
    stream.write_all(text.as_bytes()).await?;
    AsyncWriteExt::shutdown(&mut stream).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    println!("{answer}");
    Ok(())
}
