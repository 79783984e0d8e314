//! The root that a verifier pins.

use crate::path::check_authorities;
use crate::{Certificate, CertificateError, PathFault};

/// A root certificate that the caller trusts because it came from a place that the caller trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustAnchor(Certificate);

impl TrustAnchor {
    /// From DER or PEM, one self-signed certificate of an authority. Its dates are looked at when a document is verified.
    pub fn from_bytes(root: &[u8]) -> Result<Self, TrustAnchorError> {
        let certificates = crate::chain::certificates_from_bytes(root)
            .map_err(|error| TrustAnchorError::Certificate(error.source))?;
        let [certificate] = <[Certificate; 1]>::try_from(certificates)
            .map_err(|certificates| TrustAnchorError::Count(certificates.len()))?;
        Self::new(certificate)
    }

    /// From a certificate that is parsed already.
    pub fn new(certificate: Certificate) -> Result<Self, TrustAnchorError> {
        let at = certificate.not_before();
        check_authorities(std::slice::from_ref(&certificate), at)
            .map_err(|error| TrustAnchorError::Root(error.fault))?;
        Ok(Self(certificate))
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.0
    }
}

/// Why a certificate cannot be pinned as a root.
#[derive(Debug, thiserror::Error)]
pub enum TrustAnchorError {
    /// Not a certificate that a chain could begin with.
    #[error("the root cannot be read")]
    Certificate(#[source] CertificateError),
    /// None, or several.
    #[error("one root certificate is needed, and there are {0}")]
    Count(usize),
    /// Not self-signed, or not an authority.
    #[error("the certificate is not a root")]
    Root(#[source] PathFault),
}
