//! P-384 keys and what signs with them.

use std::error::Error;
use std::fmt;

use der::pem::LineEnding;
use der::{Encode, SecretDocument};
use p384::SecretKey;
use p384::ecdsa::signature::{Signer as _, Verifier as _};
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use p384::elliptic_curve::Generate;
use p384::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Bytes of an ES384 signature: r and s, 48 bytes each, big-endian.
pub const SIGNATURE_LEN: usize = 96;

/// Bytes of an uncompressed P-384 point: 04, x, y.
const POINT_LEN: usize = 97;

/// The label of a PKCS#8 key in PEM.
const PKCS8_LABEL: &str = "PRIVATE KEY";

/// A P-384 public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From a point on the curve: 97 bytes, 04 ‖ x ‖ y (SEC 1, 2.3.3). Compressed points are not accepted.
    pub fn from_sec1(point: &[u8]) -> Result<Self, KeyError> {
        if point.len() != POINT_LEN || point.first() != Some(&4) {
            return Err(KeyError::Point);
        }
        VerifyingKey::from_sec1_bytes(point)
            .map(Self)
            .map_err(|_| KeyError::Point)
    }

    /// The point, 97 bytes, as [`PublicKey::from_sec1`] takes it.
    pub fn to_sec1(&self) -> Vec<u8> {
        self.0.to_sec1_point(false).as_bytes().to_vec()
    }

    /// Whether `signature` (r ‖ s) is this key's over `message`, with SHA-384.
    pub fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

/// Something that signs with a P-384 key: software here; a TPM or an HSM may be another.
pub trait Signer {
    /// The key that the signatures verify with.
    fn public_key(&self) -> PublicKey;

    /// ES384: ECDSA over the SHA-384 of `message`, as r ‖ s.
    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_LEN], SignError>;
}

/// Why a device did not sign.
#[derive(Debug, thiserror::Error)]
#[error("the key's device did not sign")]
pub struct SignError(#[source] pub Box<dyn Error + Send + Sync>);

/// A P-384 private key in memory. It is overwritten when dropped, and `Debug` does not show it.
pub struct SoftwareKey(SigningKey);

impl SoftwareKey {
    /// A new random key.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        Self(SigningKey::generate_from_rng(rng))
    }

    /// From an unencrypted PKCS#8 key (RFC 5958) in DER or PEM.
    pub fn from_pkcs8(key: &[u8]) -> Result<Self, KeyError> {
        let secret = match std::str::from_utf8(key) {
            Ok(text) if text.contains("-----BEGIN") => {
                let (label, document) = SecretDocument::from_pem(text.trim()).map_err(KeyError::Pem)?;
                if label != PKCS8_LABEL {
                    return Err(KeyError::Label(label.escape_debug().to_string()));
                }
                SecretKey::from_pkcs8_der(document.as_bytes())
            }
            _ => SecretKey::from_pkcs8_der(key),
        };
        Ok(Self(secret.map_err(|_| KeyError::Pkcs8)?.into()))
    }

    /// PKCS#8 in DER; the bytes are overwritten when dropped.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.0.to_pkcs8_der().map_err(|_| KeyError::Encode)?;
        Ok(document.to_bytes())
    }

    /// PKCS#8 in PEM; the text is overwritten when dropped.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let document = self.0.to_pkcs8_der().map_err(|_| KeyError::Encode)?;
        document
            .to_pem(PKCS8_LABEL, LineEnding::LF)
            .map_err(|_| KeyError::Encode)
    }
}

impl Signer for SoftwareKey {
    fn public_key(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// Deterministic (RFC 6979): no randomness that could be weak.
    fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_LEN], SignError> {
        let signature: Signature = self
            .0
            .try_sign(message)
            .map_err(|error| SignError(error.into()))?;
        Ok(signature.to_bytes().into())
    }
}

impl fmt::Debug for SoftwareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKey").finish_non_exhaustive()
    }
}

/// The signature of a certificate: a DER SEQUENCE of r and s, from r ‖ s. `None` if r or s is out of range.
pub(crate) fn signature_to_der(signature: &[u8; SIGNATURE_LEN]) -> Option<Vec<u8>> {
    let signature = Signature::from_slice(signature).ok()?;
    signature.to_der().to_der().ok()
}

/// r ‖ s from the DER of a certificate's signature. `None` if it is no such DER or r or s is out of range.
pub(crate) fn signature_from_der(der: &[u8]) -> Option<[u8; SIGNATURE_LEN]> {
    let signature = Signature::from_der(der).ok()?;
    Some(signature.to_bytes().into())
}

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not 04 ‖ x ‖ y of a point on P-384.
    #[error("not an uncompressed point on P-384 (97 bytes, the first of them 04)")]
    Point,
    /// The PEM armour is broken.
    #[error("the key is not valid PEM")]
    Pem(#[source] der::Error),
    /// PEM of something else: an encrypted key, a SEC 1 key, a certificate.
    #[error(
        "the PEM block is a {0:?}, not an unencrypted \"{PKCS8_LABEL}\"; \
         `openssl pkcs8 -topk8 -nocrypt -in KEY` converts it"
    )]
    Label(String),
    /// The DER is not a P-384 key in PKCS#8.
    #[error(
        "not an unencrypted P-384 key in PKCS#8; \
         `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384` makes one"
    )]
    Pkcs8,
    /// The key cannot be encoded. Does not happen with a valid key.
    #[error("the key cannot be encoded as PKCS#8")]
    Encode,
}
