//! What a document says.

use std::collections::BTreeMap;

use crate::Timestamp;

/// Bytes of `public_key`, `user_data` and `nonce` each.
pub const MAX_FIELD: usize = 1024;

/// Platform configuration registers: their indices are 0 to 31.
pub const PCR_COUNT: u8 = 32;

/// Bytes of a register: a SHA-384.
pub const PCR_LEN: usize = 48;

/// The only value of `digest`.
pub(crate) const DIGEST: &str = "SHA384";

/// The entries of a document's map that do not concern its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationContent {
    /// Which enclave: `<instance id>-enc<16 hex digits>`. Not empty.
    pub module_id: String,
    /// When the document was made. Not zero.
    pub timestamp: Timestamp,
    /// The locked registers by their index: 1 to [`PCR_COUNT`] of them.
    pub pcrs: BTreeMap<u8, [u8; PCR_LEN]>,
    /// A key of the enclave's, in whatever form its application agreed on: 1 to [`MAX_FIELD`] bytes.
    pub public_key: Option<Vec<u8>>,
    /// Anything: [`MAX_FIELD`] bytes at most.
    pub user_data: Option<Vec<u8>>,
    /// What the verifier asked to be repeated: [`MAX_FIELD`] bytes at most.
    pub nonce: Option<Vec<u8>>,
}

impl AttestationContent {
    /// The first thing in here that no document may have. Written and parsed documents keep the same rules.
    pub(crate) fn fault(&self) -> Option<ContentFault> {
        if self.module_id.is_empty() {
            return Some(ContentFault::ModuleId);
        }
        if self.timestamp.as_millis() == 0 {
            return Some(ContentFault::Timestamp);
        }
        if self.pcrs.is_empty() {
            return Some(ContentFault::NoPcrs);
        }
        if let Some(index) = self.pcrs.keys().find(|index| **index >= PCR_COUNT) {
            return Some(ContentFault::PcrIndex(*index));
        }
        [
            ("public_key", &self.public_key, 1),
            ("user_data", &self.user_data, 0),
            ("nonce", &self.nonce, 0),
        ]
        .into_iter()
        .find_map(|(field, value, min)| {
            let len = value.as_ref()?.len();
            (!(min..=MAX_FIELD).contains(&len)).then_some(ContentFault::FieldLength { field, len, min })
        })
    }
}

/// What no document may say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentFault {
    /// `module_id` is empty.
    #[error("module_id is empty")]
    ModuleId,
    /// `timestamp` is 0.
    #[error("timestamp is 0")]
    Timestamp,
    /// `pcrs` is empty.
    #[error("pcrs is empty")]
    NoPcrs,
    /// An index that no register has.
    #[error("there is no PCR {0}; the last is 31")]
    PcrIndex(u8),
    /// `public_key`, `user_data` or `nonce` is too long, or a key is empty.
    #[error("{field} has {len} bytes; {min} to {MAX_FIELD} are allowed")]
    FieldLength {
        /// Which field.
        field: &'static str,
        /// Its bytes.
        len: usize,
        /// The fewest it may have.
        min: usize,
    },
}
