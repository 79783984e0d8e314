//! The side that has the secret.
//!
//! In the example this is a program on the parent. It need not be: all it takes is a connection to the enclave, and the
//! parent could as well forward bytes between it and another machine that trusts neither the parent nor the network.

use std::io::{Read, Write};
use std::time::Duration;

use attestation::{AttestationDocument, PCR_LEN, Policy, Timestamp, TrustAnchor, VerifyError, verify};

use crate::frame::{DOCUMENT, FrameError, NONCE, RECEIPT, SEALED};
use crate::sealing::{NoPublicKey, seal};
use crate::{Nonce, Secret};

/// How far the document's time may be from ours. The nonce proves that it is new; this finds a clock that is wrong.
pub const MAX_AGE: Duration = Duration::from_mins(5);

/// Who may have the secret: enclaves of one image, vouched for by one root, and not in debug mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The platform's root, pinned.
    pub root: TrustAnchor,
    /// The measurement of the image.
    pub pcr0: [u8; PCR_LEN],
}

/// Has one conversation over `stream`: verifies the enclave at the time that `now` gives, and only then sends the secret.
/// Returns the enclave's document once the enclave has proved that it has read the secret.
pub fn send_secret(
    stream: &mut (impl Read + Write),
    trust: &Trust,
    now: impl FnOnce() -> Timestamp,
    secret: &Secret,
) -> Result<AttestationDocument, SendError> {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).map_err(SendError::Random)?;
    NONCE.send(stream, &nonce)?;
    let document = DOCUMENT.receive(stream)?;
    let document = verify(&document, &trust.root, now(), &policy(trust, &nonce))?;

    let public_key = document.content().public_key.as_deref().unwrap_or_default();
    let (sealed, expected_receipt) = seal(public_key, &nonce, secret)?;
    SEALED.send(stream, &sealed)?;
    if expected_receipt.is(&RECEIPT.receive(stream)?) {
        Ok(document)
    } else {
        Err(SendError::Receipt)
    }
}

/// Enclaves in debug mode are refused, which is the default.
fn policy(trust: &Trust, nonce: &Nonce) -> Policy {
    Policy {
        pcrs: [(0, trust.pcr0)].into(),
        nonce: Some(nonce.to_vec()),
        max_age: Some(MAX_AGE),
        ..Policy::default()
    }
}

/// Why the secret was not sent, or it is not known that the enclave has read it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The operating system has no random bytes for a nonce.
    #[error("there are no random numbers")]
    Random(#[source] getrandom::Error),
    /// A message was not exchanged. The secret may have been sent if it was the receipt, to a verified enclave.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The enclave has not proved what it is. Nothing was sent.
    #[error("the document does not pass the check \"{}\"", .0.check())]
    NotVerified(#[from] VerifyError),
    /// The document is as it should be, but has no key to encrypt to. Nothing was sent.
    #[error("the document names no key for the secret")]
    NoPublicKey(#[from] NoPublicKey),
    /// The secret was sent to a verified enclave, whose answer does not prove that it has read it.
    #[error("the receipt is wrong: the enclave has not read the secret")]
    Receipt,
}

impl SendError {
    /// Whether the enclave was refused: it is not one that may have the secret.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotVerified(_) | Self::NoPublicKey(_))
    }
}
