//! The example's enclave application: proves what it is to whoever asks, and takes a secret.
//!
//! Nothing in here is particular to enclaved: `/dev/nsm` is asked through the client that applications of AWS Nitro Enclaves
//! use, and the parent is reached by vsock. What it prints can be read in debug mode only.

#![forbid(unsafe_code)]

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use attest::enclave::receive_secret;
use attest::sealing::KeyPair;
use attest::{Nonce, PORT};
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_init, nsm_process_request};
use serde_bytes::ByteBuf;
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// How long a read or a write may take. Conversations are had one after the other.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("attest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<std::convert::Infallible, Box<dyn Error>> {
    let nsm = nsm_init();
    if nsm < 0 {
        return Err("/dev/nsm cannot be opened".into());
    }
    let keys = KeyPair::generate();
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, PORT)?;
    println!("attest: waiting for a secret");
    loop {
        let (stream, _) = listener.accept()?;
        match converse(stream, nsm, &keys) {
            // The length is no news to the parent, which has seen the message.
            Ok(length) => println!("attest: received a secret of {length} bytes"),
            Err(error) => println!("attest: no secret: {error}"),
        }
    }
}

/// The length of the secret, which this example has no other use for.
fn converse(mut stream: VsockStream, nsm: i32, keys: &KeyPair) -> Result<usize, Box<dyn Error>> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let secret = receive_secret(&mut stream, keys, |nonce| document(nsm, nonce, keys))?;
    Ok(secret.bytes().len())
}

fn document(nsm: i32, nonce: &Nonce, keys: &KeyPair) -> Result<Vec<u8>, String> {
    let request = Request::Attestation {
        user_data: None,
        nonce: Some(ByteBuf::from(*nonce)),
        public_key: Some(ByteBuf::from(*keys.public_key())),
    };
    match nsm_process_request(nsm, request) {
        Response::Attestation { document } => Ok(document),
        Response::Error(error) => Err(format!("{error:?}")),
        other => Err(format!("it answers {other:?}")),
    }
}
