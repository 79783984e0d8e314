//! Enclave application: speaks TLS to servers beyond its parent, as applications on EC2 do that use AWS's services: the TCP
//! connection is the parent's, the TLS session ends in the enclave.
//!
//! Each connection to [`port::TLS`] takes one [`TlsOrder`] as a line and answers with one.

#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::sync::Arc;
use std::thread;

use end_to_end_tests::guest::{TlsOrder, port};
use end_to_end_tests::stream;
use end_to_end_tests::vsock_socket::read_line;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// The parent, as applications on EC2 know it.
const PARENT: u32 = 3;

fn main() -> io::Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port::TLS)?;
    println!("tls-client: ready");
    loop {
        let (stream, _) = listener.accept()?;
        take_order(stream)?;
    }
}

fn take_order(mut stream: VsockStream) -> io::Result<()> {
    let line = read_line(&mut stream)?;
    let order = TlsOrder::parse(&line).ok_or(io::ErrorKind::InvalidInput)?;
    let answer = match carry_out(&order) {
        Ok(()) => "exchanged".to_owned(),
        Err(error) => format!("{:?}: {error}", error.kind()),
    };
    writeln!(stream, "{answer}")
}

fn carry_out(order: &TlsOrder) -> io::Result<()> {
    let config = Arc::new(trusting(&order.root).map_err(io::Error::other)?);
    thread::scope(|scope| {
        let exchanges: Vec<_> = (0..order.connections)
            .map(|seed| {
                let config = Arc::clone(&config);
                scope.spawn(move || exchange(order, config, seed))
            })
            .collect();
        for exchange in exchanges {
            exchange
                .join()
                .map_err(|_| io::Error::other("an exchange panicked"))??;
        }
        Ok(())
    })
}

fn trusting(root: &[u8]) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Sends, says that this was all, and receives.
fn exchange(order: &TlsOrder, config: Arc<ClientConfig>, seed: u64) -> io::Result<()> {
    let name = ServerName::try_from(order.name.clone()).map_err(io::Error::other)?;
    let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let socket = VsockStream::connect_with_cid_port(PARENT, order.port)?;
    let mut tls = StreamOwned::new(session, socket);
    let sent = stream::send(&mut tls, seed, order.bytes)?;
    tls.conn.send_close_notify();
    tls.flush()?;
    let received = stream::receive(&mut tls)?;
    if received == sent {
        return Ok(());
    }
    let text = format!("sent {sent}, but received {received}");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}
