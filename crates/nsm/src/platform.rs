//! What an attestor needs from the machine it runs on: a clock, random bytes, and somebody who signs.

use std::error::Error;

use crate::{ModuleId, Pcr};

/// Why the machine did not do what it was asked for. For the operator's log; a guest only learns that there was an error.
pub type PlatformError = Box<dyn Error + Send + Sync>;

/// The machine, as an attestor sees it.
pub trait Platform {
    /// The time in milliseconds since 1970, UTC.
    fn now_ms(&mut self) -> u64;

    /// Fills all of `bytes` with random bytes that are fit for keys.
    fn fill_random(&mut self, bytes: &mut [u8]) -> Result<(), PlatformError>;

    /// Makes the document that states `content`: an untagged `COSE_Sign1` with the chain of certificates in it. With its
    /// wrapper of 26 bytes it has to fit into [`MAX_RESPONSE`](crate::MAX_RESPONSE).
    fn issue_document(&mut self, content: &AttestationContent<'_>) -> Result<Vec<u8>, PlatformError>;
}

/// What a document states. The rest of it (digest "SHA384", certificate, chain) is the issuer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationContent<'a> {
    /// The enclave's module.
    pub module_id: &'a ModuleId,
    /// When, in milliseconds since 1970, UTC.
    pub timestamp_ms: u64,
    /// Indices and values of the locked registers, ascending by index. Others may still change and are not stated.
    pub pcrs: Vec<(u16, Pcr)>,
    /// As the guest gave it, up to 1024 bytes.
    pub public_key: Option<&'a [u8]>,
    /// As the guest gave it, up to 1024 bytes.
    pub user_data: Option<&'a [u8]>,
    /// As the guest gave it, up to 1024 bytes.
    pub nonce: Option<&'a [u8]>,
}
