//! Keys on the three curves: those that verify, from certificates, and those that sign, from PEM files.

use eif::CoseAlgorithm;
use eif::pem::{self, PemError};
use p256::ecdsa::signature::{Signer, Verifier};
use p256::pkcs8::SubjectPublicKeyInfoRef;
use zeroize::Zeroizing;

/// The labels of private keys in PEM: PKCS #8 (RFC 5958), and that of elliptic curves alone (SEC 1, RFC 5915).
const PKCS8: &str = "PRIVATE KEY";
const SEC1: &str = "EC PRIVATE KEY";

/// Why a private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Neither form of a private key is in the file.
    #[error(
        "no private key of an elliptic curve in the file: a line -----BEGIN {PKCS8}----- or -----BEGIN {SEC1}----- is needed"
    )]
    NoKey,
    /// It is there, but takes a passphrase.
    #[error("the private key is encrypted; decrypt it first, for example with `openssl pkey`")]
    Encrypted,
    /// It is not well-formed PEM.
    #[error("malformed private key")]
    Pem(#[from] PemError),
    /// It is no key, or one on another curve.
    #[error("the private key is not one for {expected}, which is what the certificate's key is for")]
    OtherCurve {
        /// By the certificate.
        expected: CoseAlgorithm,
    },
    /// It is another key than the certificate's.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
}

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublicKey {
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::ecdsa::VerifyingKey),
}

impl PublicKey {
    /// The key in a `SubjectPublicKeyInfo`, if it is a point on one of the curves.
    pub(crate) fn from_spki(spki: &SubjectPublicKeyInfoRef<'_>) -> Option<Self> {
        let p256 = || p256::ecdsa::VerifyingKey::try_from(spki.clone()).map(Self::P256);
        let p384 = || p384::ecdsa::VerifyingKey::try_from(spki.clone()).map(Self::P384);
        let p521 = || p521::ecdsa::VerifyingKey::try_from(spki.clone()).map(Self::P521);
        // Each takes none but its own curve's object identifier.
        p256().or_else(|_| p384()).or_else(|_| p521()).ok()
    }

    /// The algorithm that goes with the curve.
    pub(crate) fn algorithm(&self) -> CoseAlgorithm {
        match self {
            Self::P256(_) => CoseAlgorithm::Es256,
            Self::P384(_) => CoseAlgorithm::Es384,
            Self::P521(_) => CoseAlgorithm::Es512,
        }
    }

    /// `signature` as r ‖ s, given like that or in DER, if it is this key's over `message`.
    pub(crate) fn fixed_signature(&self, message: &[u8], signature: &[u8]) -> Option<Vec<u8>> {
        let from_der = match self {
            Self::P256(_) => p256::ecdsa::Signature::from_der(signature).map(|fixed| fixed.to_vec()),
            Self::P384(_) => p384::ecdsa::Signature::from_der(signature).map(|fixed| fixed.to_vec()),
            Self::P521(_) => p521::ecdsa::Signature::from_der(signature).map(|fixed| fixed.to_vec()),
        };
        [Ok(signature.to_vec()), from_der]
            .into_iter()
            .flatten()
            .find(|fixed| self.verifies(message, fixed))
    }

    /// Whether `signature`, r ‖ s, is this key's over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => verifies::<_, p256::ecdsa::Signature>(key, message, signature),
            Self::P384(key) => verifies::<_, p384::ecdsa::Signature>(key, message, signature),
            Self::P521(key) => verifies::<_, p521::ecdsa::Signature>(key, message, signature),
        }
    }
}

fn verifies<K, S>(key: &K, message: &[u8], signature: &[u8]) -> bool
where
    K: Verifier<S>,
    S: for<'a> TryFrom<&'a [u8]>,
{
    S::try_from(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
}

/// A key that signs. Overwritten when it is dropped, and never shown.
#[derive(Clone, Debug)]
pub(crate) enum PrivateKey {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
}

impl PrivateKey {
    /// The key in a PEM text, on the curve of `algorithm`. Text before and after it is ignored, also `EC PARAMETERS`.
    pub(crate) fn from_pem(text: &[u8], algorithm: CoseAlgorithm) -> Result<Self, KeyError> {
        let der = Zeroizing::new(der_of_pem(text)?);
        let key = match algorithm {
            CoseAlgorithm::Es256 => p256::SecretKey::from_der(&der).map(|key| Self::P256(key.into())),
            CoseAlgorithm::Es384 => p384::SecretKey::from_der(&der).map(|key| Self::P384(key.into())),
            CoseAlgorithm::Es512 => p521::SecretKey::from_der(&der).map(|key| Self::P521(key.into())),
        };
        // The cause would be about DER, and perhaps about the key's bytes.
        key.map_err(|_| KeyError::OtherCurve { expected: algorithm })
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        match self {
            Self::P256(key) => PublicKey::P256(*key.verifying_key()),
            Self::P384(key) => PublicKey::P384(*key.verifying_key()),
            Self::P521(key) => PublicKey::P521(*key.verifying_key()),
        }
    }

    /// The signature over `message`, r ‖ s; `None` only if the key has none for it, which no key of a sound curve does.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::P256(key) => key
                .try_sign(message)
                .ok()
                .map(|signature: p256::ecdsa::Signature| signature.to_vec()),
            Self::P384(key) => key
                .try_sign(message)
                .ok()
                .map(|signature: p384::ecdsa::Signature| signature.to_vec()),
            Self::P521(key) => key
                .try_sign(message)
                .ok()
                .map(|signature: p521::ecdsa::Signature| signature.to_vec()),
        }
    }
}

fn der_of_pem(text: &[u8]) -> Result<Vec<u8>, KeyError> {
    for label in [PKCS8, SEC1] {
        match pem::der(text, label) {
            Err(PemError::NoBegin { .. }) => {}
            // The old form of encryption has lines in front of the base64 that say so (RFC 1421).
            Err(_) if contains(text, b"Proc-Type: 4,ENCRYPTED") => return Err(KeyError::Encrypted),
            found => return Ok(found?),
        }
    }
    if contains(text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        return Err(KeyError::Encrypted);
    }
    Err(KeyError::NoKey)
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}
