//! A TLS server that sends back what its client has sent, once the client has ended.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use test_signer::TestSigner;

/// With this certificate.
pub(crate) fn of(signer: &TestSigner) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from(signer.certificate_der.clone());
    let key = PrivateKeyDer::from_pem_slice(&signer.key_pem).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions").with_no_client_auth();
    Arc::new(
        config
            .with_single_cert(vec![certificate], key)
            .expect("a certificate"),
    )
}

/// Serves one connection.
pub(crate) fn echo(config: Arc<ServerConfig>, stream: TcpStream) -> io::Result<()> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(session, stream);
    let mut received = Vec::new();
    tls.read_to_end(&mut received)?;
    tls.write_all(&received)?;
    tls.conn.send_close_notify();
    tls.flush()
}
