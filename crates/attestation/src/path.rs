//! Path validation: whether each certificate of a chain may vouch for the next.
//!
//! The rules are those of RFC 5280, 6.1, that this chain has a use for. There are no policies, name constraints or
//! revocation lists; a critical extension that would bring them in is refused when the certificate is parsed. The order of
//! the certificates is given, so nothing is searched for.

use std::fmt;

use x509_cert::ext::pkix::KeyUsage;

use crate::{Certificate, Timestamp};

/// Which certificate of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first of `cabundle`.
    Root,
    /// That entry of `cabundle`, from 1.
    Bundle(usize),
    /// `certificate`, the enclave's own.
    Leaf,
}

impl Position {
    /// The position of entry `index` of `cabundle`.
    pub(crate) fn in_bundle(index: usize) -> Self {
        if index == 0 {
            Self::Root
        } else {
            Self::Bundle(index)
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Bundle(index) => write!(f, "cabundle[{index}]"),
            Self::Leaf => f.write_str("leaf"),
        }
    }
}

/// A certificate that breaks the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate {position}: {fault}")]
pub struct PathError {
    /// Which one.
    pub position: Position,
    /// What is wrong with it.
    pub fault: PathFault,
}

/// What is wrong with a certificate at its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// The time is before its validity.
    #[error("not valid before {not_before}, and the time is {at}")]
    NotYetValid {
        /// First second of its validity.
        not_before: Timestamp,
        /// The time it was looked at.
        at: Timestamp,
    },
    /// The time is after its validity.
    #[error("expired at {not_after}, and the time is {at}")]
    Expired {
        /// Last second of its validity.
        not_after: Timestamp,
        /// The time it was looked at.
        at: Timestamp,
    },
    /// Its issuer is not the subject of the certificate before it.
    #[error("its issuer is not the subject of the certificate above it")]
    IssuerName,
    /// It is not signed by the key of the certificate before it.
    #[error("not signed by the key of the certificate above it")]
    Signature,
    /// It issues certificates but is not a certification authority.
    #[error("basicConstraints does not make it a CA")]
    NotCa,
    /// More authorities come after it than it allows.
    #[error("basicConstraints allows {allowed} CA certificates below it, and there are {below}")]
    PathLength {
        /// Its path length.
        allowed: u8,
        /// Authorities after it.
        below: usize,
    },
    /// keyUsage lacks what it is used for.
    #[error("keyUsage does not include {0}")]
    KeyUsage(&'static str),
    /// The enclave's certificate could issue others.
    #[error("it is a CA, and an enclave's certificate must not be")]
    LeafIsCa,
}

impl PathFault {
    /// The name of the check that failed, for programs.
    pub fn check(&self) -> &'static str {
        match self {
            Self::NotYetValid { .. } | Self::Expired { .. } => "validity",
            Self::IssuerName => "issuer-name",
            Self::Signature => "certificate-signature",
            Self::NotCa | Self::LeafIsCa => "basic-constraints",
            Self::PathLength { .. } => "path-length",
            Self::KeyUsage(_) => "key-usage",
        }
    }
}

/// Checks the authorities `cas`, root first, at time `at`. `cas[0]` must be trusted for a reason of the caller's.
pub(crate) fn check_authorities(cas: &[Certificate], at: Timestamp) -> Result<(), PathError> {
    let mut issuer: Option<&Certificate> = None;
    for (index, certificate) in cas.iter().enumerate() {
        let below = cas.len() - 1 - index;
        check_authority(certificate, issuer.unwrap_or(certificate), below, at).map_err(|fault| {
            PathError {
                position: Position::in_bundle(index),
                fault,
            }
        })?;
        issuer = Some(certificate);
    }
    Ok(())
}

/// Checks the enclave's certificate and that `issuer`, the last authority, issued it.
pub(crate) fn check_leaf(leaf: &Certificate, issuer: &Certificate, at: Timestamp) -> Result<(), PathError> {
    let checked = check_issued(leaf, issuer, at).and_then(|()| {
        if leaf.basic_constraints().is_some_and(|constraints| constraints.ca) {
            return Err(PathFault::LeafIsCa);
        }
        if !leaf.key_usage().is_some_and(KeyUsage::digital_signature) {
            return Err(PathFault::KeyUsage("digitalSignature"));
        }
        Ok(())
    });
    checked.map_err(|fault| PathError {
        position: Position::Leaf,
        fault,
    })
}

/// An authority with `below` authorities after it. The root is its own issuer.
fn check_authority(
    certificate: &Certificate,
    issuer: &Certificate,
    below: usize,
    at: Timestamp,
) -> Result<(), PathFault> {
    let Some(constraints) = certificate
        .basic_constraints()
        .filter(|constraints| constraints.ca)
    else {
        return Err(PathFault::NotCa);
    };
    if let Some(allowed) = constraints.path_len_constraint
        && usize::from(allowed) < below
    {
        return Err(PathFault::PathLength { allowed, below });
    }
    if !certificate.key_usage().is_some_and(KeyUsage::key_cert_sign) {
        return Err(PathFault::KeyUsage("keyCertSign"));
    }
    check_issued(certificate, issuer, at)
}

/// Dates, names and signature, the costly one last.
fn check_issued(certificate: &Certificate, issuer: &Certificate, at: Timestamp) -> Result<(), PathFault> {
    let (not_before, not_after) = (certificate.not_before(), certificate.not_after());
    if at.as_secs() < not_before.as_secs() {
        return Err(PathFault::NotYetValid { not_before, at });
    }
    if at.as_secs() > not_after.as_secs() {
        return Err(PathFault::Expired { not_after, at });
    }
    if !certificate.names_issuer(issuer) {
        return Err(PathFault::IssuerName);
    }
    if !certificate.is_signed_by(issuer) {
        return Err(PathFault::Signature);
    }
    Ok(())
}
