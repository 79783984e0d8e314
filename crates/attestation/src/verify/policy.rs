//! What a verifier expects a document to say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::{AttestationContent, PCR_LEN, Timestamp};

/// What registers of an enclave in debug mode hold instead of its measurements.
const ZERO: [u8; PCR_LEN] = [0; PCR_LEN];

/// What must be true of a document besides being genuine. The default asks only that the enclave is not in debug mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Registers that must be there with these values.
    pub pcrs: BTreeMap<u8, [u8; PCR_LEN]>,
    /// What `nonce` must be.
    pub nonce: Option<Vec<u8>>,
    /// What `user_data` must be.
    pub user_data: Option<Vec<u8>>,
    /// Takes enclaves in debug mode, whose PCR 0 is zero: their console is readable from outside and their measurements say
    /// nothing.
    pub allow_debug: bool,
    /// The longest time between the document's timestamp and the time of verification, whichever comes first. Without it a
    /// document is good for as long as its certificate, three hours.
    pub max_age: Option<Duration>,
}

impl Policy {
    /// Whether `content` says what it should, at the time `at`. The first expectation that fails is the error.
    pub fn check(&self, content: &AttestationContent, at: Timestamp) -> Result<(), PolicyError> {
        if !self.allow_debug && content.pcrs.get(&0).is_none_or(|pcr0| *pcr0 == ZERO) {
            return Err(PolicyError::Debug);
        }
        for (&index, expected) in &self.pcrs {
            let found = content.pcrs.get(&index).copied();
            if found != Some(*expected) {
                return Err(PolicyError::Pcr {
                    index,
                    expected: *expected,
                    found,
                });
            }
        }
        if self.nonce.is_some() && self.nonce != content.nonce {
            return Err(PolicyError::Nonce);
        }
        if self.user_data.is_some() && self.user_data != content.user_data {
            return Err(PolicyError::UserData);
        }
        self.check_age(content.timestamp, at)
    }

    fn check_age(&self, timestamp: Timestamp, at: Timestamp) -> Result<(), PolicyError> {
        match self.max_age {
            Some(max) if timestamp.distance(at) > max => Err(PolicyError::Age { timestamp, at, max }),
            _ => Ok(()),
        }
    }
}

/// What a genuine document does not say as expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// PCR 0 is zero or missing.
    #[error("PCR 0 holds no measurement: the enclave runs in debug mode; allow that only for tests")]
    Debug,
    /// A register has another value, or is not in the document.
    #[error("PCR {index} is {}, expected {}", found.as_ref().map_or_else(|| "not there".into(), hex), hex(expected))]
    Pcr {
        /// Which register.
        index: u8,
        /// The policy's value.
        expected: [u8; PCR_LEN],
        /// The document's value.
        found: Option<[u8; PCR_LEN]>,
    },
    /// Another nonce, or none.
    #[error("nonce is not the expected one")]
    Nonce,
    /// Other user data, or none.
    #[error("user_data is not the expected one")]
    UserData,
    /// Made too long before or after the time of verification.
    #[error("made at {timestamp}, more than {} s from {at}", max.as_secs())]
    Age {
        /// When it was made.
        timestamp: Timestamp,
        /// The time of verification.
        at: Timestamp,
        /// The policy's limit.
        max: Duration,
    },
}

impl PolicyError {
    /// The name of the check that failed, as [`VerifyError::check`](crate::VerifyError::check) gives it.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Pcr { .. } => "pcr",
            Self::Nonce => "nonce",
            Self::UserData => "user-data",
            Self::Age { .. } => "age",
        }
    }
}

fn hex(bytes: &[u8; PCR_LEN]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
