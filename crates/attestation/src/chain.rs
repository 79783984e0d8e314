//! Issuing the certificates behind documents, or taking in an operator's.
//!
//! A daemon that is its own authority makes a root once and issues each level from the one above:
//!
//! ```text
//! issue_root ──► Issuer::issue_regional ──► Issuer::issue_zonal ──► Issuer::issue_host ──► Issuer::issue_enclave
//! ```
//!
//! An operator with an authority of their own issues one certificate for the host, which may sign certificates, and hands
//! over its key and the chain up to their root: [`CaBundle::import`]. The daemon then holds no root key.
//!
//! # Profile
//!
//! Every certificate is X.509 version 3 over a P-384 key, signed with ecdsa-with-SHA384. `countryName` is a PrintableString,
//! every other part of a name a UTF8String. Dates up to 2049 are UTCTime, later ones GeneralizedTime (RFC 5280, 4.1.2.5).
//!
//! | level | subject, in this order | serial number | extensions, in this order; `!` is critical |
//! |---|---|---|---|
//! | root | C, O, OU, CN=`enclaved root` | 16 random bytes | !basicConstraints CA; SKI; !keyUsage S C R |
//! | regional | C, O, OU, CN=`<16 hex>.<region>.enclaved` | 16 | !basicConstraints CA, 2; AKI; SKI; !keyUsage S C R |
//! | zonal | CN=`<16 hex>.zonal.<region>.enclaved`, OU, O, C, ST, L | 16 | !basicConstraints CA, 1; AKI; SKI; !keyUsage S C R |
//! | host | C, ST, L, O, OU, CN=`<instance>.<region>.enclaved` | 20 | !basicConstraints CA, 0; !keyUsage C; SKI; AKI |
//! | enclave | C, ST, L, O, OU, CN=`<module>.<region>.enclaved` | slot uid ‖ Unix seconds, 8 bytes each | !basicConstraints, empty; keyUsage S N |
//!
//! keyUsage: S digitalSignature, N nonRepudiation, C keyCertSign, R cRLSign. SKI and AKI are the subject's and the issuer's key
//! identifier: the first 20 bytes of the SHA-256 of the key (RFC 7093, 2, method 1).
//!
//! # Lifetimes and renewal
//!
//! No certificate outlives its issuer; [`Issuer`] refuses to issue one that would. [`renew_at`] says when an authority has to
//! be renewed so that this never stands in the way: one hour before the time from which it could no longer issue a
//! certificate of the level below for its full lifetime. An enclave's certificate, which issues nothing, is due when less
//! than an hour of it is left.
//!
//! | level | lifetime | due |
//! |---|---|---|
//! | root | 30 years (10957 days) | 20 days and 2 hours before its end |
//! | regional | 20 days and 1 hour | 6 days and 1 hour before its end |
//! | zonal | 6 days | 25 hours before its end |
//! | host | 24 hours | 4 hours before its end |
//! | enclave | 3 hours, and 3 seconds before it was made | 1 hour before its end |

mod bundle;
mod issue;
mod name;
mod profile;

use std::time::Duration;

pub use bundle::{CaBundle, ImportError, ParseError, certificates_from_bytes};
pub use issue::{IssueError, Issuer, issue_root};
pub use name::{InstanceId, ModuleId, NameError, Region};

use crate::{Certificate, Timestamp};

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// An enclave's certificate is valid from so long before it was made, for verifiers whose clock is a little behind.
const ENCLAVE_BACKDATE: Duration = Duration::from_secs(3);

/// A level of the chain, from the root down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What verifiers pin.
    Root,
    /// Issued by the root.
    Regional,
    /// Issued by the regional authority.
    Zonal,
    /// One host; issues certificates for its enclaves.
    Host,
    /// One enclave; signs its documents.
    Enclave,
}

impl Level {
    /// How long a certificate of this level is valid, counted from its start, or for an enclave from when it was made.
    pub const fn lifetime(self) -> Duration {
        Duration::from_secs(match self {
            Self::Root => 10_957 * DAY.as_secs(),
            Self::Regional => 20 * DAY.as_secs() + HOUR.as_secs(),
            Self::Zonal => 6 * DAY.as_secs(),
            Self::Host => DAY.as_secs(),
            Self::Enclave => 3 * HOUR.as_secs(),
        })
    }

    /// The level that this one issues.
    const fn below(self) -> Option<Self> {
        match self {
            Self::Root => Some(Self::Regional),
            Self::Regional => Some(Self::Zonal),
            Self::Zonal => Some(Self::Host),
            Self::Host => Some(Self::Enclave),
            Self::Enclave => None,
        }
    }
}

/// When a certificate of `level` is due for renewal; see the table at the head of this module. Holds for a host's
/// certificate that an operator issued too.
pub fn renew_at(level: Level, certificate: &Certificate) -> Timestamp {
    let issues_for = level.below().map_or(Duration::ZERO, Level::lifetime);
    certificate.not_after().before(issues_for + HOUR)
}
