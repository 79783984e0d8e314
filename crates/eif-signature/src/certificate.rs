//! The signer's certificate (X.509, RFC 5280), and what it decides about an image's signature.

use std::collections::BTreeMap;
use std::time::SystemTime;

use eif::pem::{self, PemError};
use eif::{CoseAlgorithm, CoseError, CoseSign1, Pcr};
use x509_cert::der::{Decode, Encode};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::key::PublicKey;
use crate::name;
use crate::time::CertificateTime;

/// A certificate with a key that can sign images. Having one says nothing about who issued it.
#[derive(Clone, Debug)]
pub struct Certificate {
    parsed: x509_cert::Certificate,
    public_key: PublicKey,
    pcr8: Pcr,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is none in the PEM text.
    #[error("malformed certificate")]
    Pem(#[from] PemError),
    /// It is not X.509 in DER.
    #[error("malformed certificate")]
    Der(#[from] x509_cert::der::Error),
    /// Its key is on none of the curves, or no point on it.
    #[error("the certificate's key is not one of an elliptic curve P-256, P-384 or P-521")]
    UnsupportedKey,
    /// It is not valid yet.
    #[error("the certificate is not valid before {not_before}")]
    NotYetValid {
        /// Its first second.
        not_before: CertificateTime,
    },
    /// It is not valid any more.
    #[error("the certificate has expired: it was valid until {not_after}")]
    Expired {
        /// Its last second.
        not_after: CertificateTime,
    },
}

/// Why a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureCheckError {
    /// It is no signature of an image.
    #[error("malformed signature")]
    Cose(#[from] CoseError),
    /// It is by another algorithm than that of the certificate's key.
    #[error("the signature is by {found}, but the certificate's key is for {expected}")]
    OtherAlgorithm {
        /// By the signature.
        found: CoseAlgorithm,
        /// By the certificate.
        expected: CoseAlgorithm,
    },
    /// It was not made with the certificate's key, or what it is over has changed.
    #[error("the signature was not made with the certificate's key")]
    Invalid,
    /// It is good, but for another image.
    #[error("the signature is for another image: it is over PCR0 {signed}, but the image has {measured}")]
    OtherImage {
        /// By the signature.
        signed: Pcr,
        /// By the image.
        measured: Pcr,
    },
}

impl Certificate {
    /// Parses one in DER form.
    ///
    /// # Errors
    /// [`CertificateError::Der`], [`CertificateError::UnsupportedKey`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = x509_cert::Certificate::from_der(der)?;
        let spki = parsed.tbs_certificate().subject_public_key_info().to_der()?;
        let public_key = PublicKey::from_spki(&SubjectPublicKeyInfoRef::from_der(&spki)?)
            .ok_or(CertificateError::UnsupportedKey)?;
        Ok(Self {
            parsed,
            public_key,
            pcr8: Pcr::of_data(der),
        })
    }

    /// Parses the first one in a PEM text.
    ///
    /// # Errors
    /// [`CertificateError::Pem`] and those of [`from_der`](Self::from_der).
    pub fn from_pem(text: &[u8]) -> Result<Self, CertificateError> {
        Self::from_der(&pem::certificate_der(text)?)
    }

    /// Checks that it is valid at `time`. Both ends belong to its validity, to the second.
    ///
    /// # Errors
    /// [`CertificateError::NotYetValid`], [`CertificateError::Expired`].
    pub fn check_dates(&self, time: SystemTime) -> Result<(), CertificateError> {
        let (not_before, not_after) = (self.not_before(), self.not_after());
        if not_before.is_after(time) {
            return Err(CertificateError::NotYetValid { not_before });
        }
        if not_after.is_over(time) {
            return Err(CertificateError::Expired { not_after });
        }
        Ok(())
    }

    /// Checks that `cose_sign1` is a signature with this certificate's key over `pcr0`. Whether the certificate is valid is
    /// not asked.
    ///
    /// # Errors
    /// See [`SignatureCheckError`].
    pub fn check_signature(&self, cose_sign1: &[u8], pcr0: &Pcr) -> Result<(), SignatureCheckError> {
        let cose = CoseSign1::parse(cose_sign1)?;
        let (found, expected) = (cose.algorithm, self.public_key.algorithm());
        if found != expected {
            return Err(SignatureCheckError::OtherAlgorithm { found, expected });
        }
        if !self.public_key.verifies(&cose.to_be_signed(), &cose.signature) {
            return Err(SignatureCheckError::Invalid);
        }
        let signed = cose.payload_pcr0()?;
        if signed != *pcr0 {
            return Err(SignatureCheckError::OtherImage {
                signed,
                measured: *pcr0,
            });
        }
        Ok(())
    }

    /// Its measurement.
    pub fn pcr8(&self) -> Pcr {
        self.pcr8
    }

    /// Who issued it: names of attributes as OpenSSL writes them in full, such as `commonName`, with their values. Of an
    /// attribute that occurs more than once it is the last.
    pub fn issuer(&self) -> BTreeMap<String, String> {
        name::attributes(self.parsed.tbs_certificate().issuer())
    }

    /// The algorithm of the issuer's signature as OpenSSL writes it, such as `ecdsa-with-SHA384`.
    pub fn algorithm(&self) -> String {
        name::of_algorithm(&self.parsed.signature_algorithm().oid)
    }

    /// When it becomes valid.
    pub fn not_before(&self) -> CertificateTime {
        self.parsed.tbs_certificate().validity().not_before.into()
    }

    /// When it is valid for the last time.
    pub fn not_after(&self) -> CertificateTime {
        self.parsed.tbs_certificate().validity().not_after.into()
    }

    /// The issuer's signature, whose form is the algorithm's.
    pub fn signature(&self) -> &[u8] {
        self.parsed.signature().raw_bytes()
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}
