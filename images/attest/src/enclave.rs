//! The enclave's side of the conversation.

use std::io::{Read, Write};

use crate::frame::{DOCUMENT, FrameError, NONCE, RECEIPT, SEALED};
use crate::sealing::{KeyPair, NotSealed};
use crate::{Nonce, Secret};

/// Has one conversation over `stream` and returns the secret. `attest` gives an attestation document with this nonce and the
/// public key of `keys`.
pub fn receive_secret<E>(
    stream: &mut (impl Read + Write),
    keys: &KeyPair,
    attest: impl FnOnce(&Nonce) -> Result<Vec<u8>, E>,
) -> Result<Secret, ReceiveError<E>> {
    let nonce = NONCE.receive(stream)?;
    // The message has no other length.
    let nonce: Nonce = nonce.try_into().map_err(|_| FrameError::Closed(NONCE.name))?;
    let document = attest(&nonce).map_err(ReceiveError::NoDocument)?;
    DOCUMENT.send(stream, &document)?;
    let sealed = SEALED.receive(stream)?;
    let (secret, receipt) = keys.open(&sealed, &nonce)?;
    RECEIPT.send(stream, &receipt)?;
    Ok(secret)
}

/// Why a conversation ended without a secret.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError<E> {
    /// A message was not exchanged.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The security module gives no document.
    #[error("the security module gives no attestation document: {0}")]
    NoDocument(E),
    /// The other side sealed to another key, or for another nonce.
    #[error(transparent)]
    NotSealed(#[from] NotSealed),
}
