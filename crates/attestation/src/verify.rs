//! Verifying a document. The crate's head lists the steps.

mod anchor;
mod parse;
mod policy;

pub use anchor::{TrustAnchor, TrustAnchorError};
pub use parse::{DocumentError, UnverifiedDocument};
pub use policy::{Policy, PolicyError};

use crate::path::{check_authorities, check_leaf};
use crate::{AttestationContent, Certificate, CertificateError, PathError, Position, Timestamp, cose};

/// A document whose signature and chain have been verified: what it says, the platform vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationDocument {
    content: AttestationContent,
    leaf: Certificate,
    cabundle: Vec<Certificate>,
}

impl AttestationDocument {
    /// What it says.
    pub fn content(&self) -> &AttestationContent {
        &self.content
    }

    /// The enclave's certificate.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// The authorities that lead to it, root first.
    pub fn cabundle(&self) -> &[Certificate] {
        &self.cabundle
    }
}

/// Parses `document`, verifies it with `root` at the time `at`, and asks `policy` whether it says what it should.
///
/// `at` is now. For a document from an archive it is the time at which the document was received; its own timestamp
/// ([`UnverifiedDocument::claimed`]) tells only that the chain was once whole.
pub fn verify(
    document: &[u8],
    root: &TrustAnchor,
    at: Timestamp,
    policy: &Policy,
) -> Result<AttestationDocument, VerifyError> {
    let document = UnverifiedDocument::parse(document)?.verify(root, at)?;
    policy.check(document.content(), at)?;
    Ok(document)
}

impl UnverifiedDocument<'_> {
    /// Verifies the chain from `root` at the time `at`, and the signature.
    ///
    /// The cost is bounded: one verification of a signature for each certificate, of which there are
    /// [`MAX_CABUNDLE`](crate::MAX_CABUNDLE) and the leaf, and one for the document.
    pub fn verify(self, root: &TrustAnchor, at: Timestamp) -> Result<AttestationDocument, VerifyError> {
        if self.cabundle.first().copied() != Some(root.certificate().as_der()) {
            return Err(VerifyError::Root);
        }
        let mut cabundle = Vec::with_capacity(self.cabundle.len());
        for (index, der) in self.cabundle.iter().enumerate() {
            cabundle.push(certificate(der, Position::in_bundle(index))?);
        }
        let leaf = certificate(self.leaf, Position::Leaf)?;
        check_authorities(&cabundle, at)?;
        check_leaf(&leaf, cabundle.last().unwrap_or(root.certificate()), at)?;
        let signed = cose::signed_bytes(self.payload);
        if !leaf.public_key().verifies(&signed, &self.signature) {
            return Err(VerifyError::Signature);
        }
        Ok(AttestationDocument {
            content: self.content,
            leaf,
            cabundle,
        })
    }
}

fn certificate(der: &[u8], position: Position) -> Result<Certificate, VerifyError> {
    Certificate::from_der(der).map_err(|source| VerifyError::Certificate { position, source })
}

/// Which check a document did not pass.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not a document.
    #[error("not an attestation document")]
    Document(#[from] DocumentError),
    /// The first of `cabundle` is not the pinned root.
    #[error("the root in the document (cabundle[0]) is not the pinned one")]
    Root,
    /// A certificate cannot be parsed.
    #[error("certificate {position} is not usable")]
    Certificate {
        /// Which one.
        position: Position,
        /// What is wrong with it.
        source: CertificateError,
    },
    /// A certificate breaks the chain.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The document is not signed by the enclave's key.
    #[error("the document is not signed by the key of its certificate")]
    Signature,
    /// It is genuine, but does not say what is expected.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl VerifyError {
    /// The name of the check that failed, for programs; stable. One of `format`, `root`, `certificate`, `validity`,
    /// `issuer-name`, `certificate-signature`, `basic-constraints`, `path-length`, `key-usage`, `signature`, `debug`,
    /// `pcr`, `nonce`, `user-data`, `age`.
    pub fn check(&self) -> &'static str {
        match self {
            Self::Document(_) => "format",
            Self::Root => "root",
            Self::Certificate { .. } => "certificate",
            Self::Path(error) => error.fault.check(),
            Self::Signature => "signature",
            Self::Policy(error) => error.check(),
        }
    }

    /// Which certificate failed it, if one did.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Root => Some(Position::Root),
            Self::Certificate { position, .. } => Some(*position),
            Self::Path(error) => Some(error.position),
            Self::Document(_) | Self::Signature | Self::Policy(_) => None,
        }
    }
}
