//! One X.509 certificate, parsed once into what path validation asks for.

use std::fmt;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280::{ID_CE_BASIC_CONSTRAINTS, ID_CE_KEY_USAGE, ID_CE_SUBJECT_KEY_IDENTIFIER};
use const_oid::db::rfc5912::{ECDSA_WITH_SHA_384, ID_EC_PUBLIC_KEY, SECP_384_R_1};
use der::asn1::BitStringRef;
use der::pem::LineEnding;
use der::{Decode, Reader, SliceReader};
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectKeyIdentifier};
use x509_cert::name::Name;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::Time;

use crate::key::signature_from_der;
use crate::{PublicKey, SIGNATURE_LEN, Timestamp};

/// Bytes of a certificate's DER.
pub const MAX_CERTIFICATE: usize = 1024;

/// The label of a certificate in PEM.
pub(crate) const PEM_LABEL: &str = "CERTIFICATE";

/// An X.509 version 3 certificate of a P-384 key, signed with ecdsa-with-SHA384.
///
/// A certificate that parsed is well-formed; nothing says yet that its issuer is to be trusted. Two are equal if their bytes
/// are.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    /// The part of `der` that is signed.
    tbs: Vec<u8>,
    signature: [u8; SIGNATURE_LEN],
    serial: Vec<u8>,
    issuer: Name,
    subject: Name,
    not_before: Timestamp,
    not_after: Timestamp,
    public_key: PublicKey,
    extensions: Extensions,
}

/// The extensions that matter here. Others are passed over unless they are critical.
#[derive(Clone, Default)]
struct Extensions {
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    subject_key_id: Option<Vec<u8>>,
}

impl Certificate {
    /// From DER, exactly one certificate of [`MAX_CERTIFICATE`] bytes at most.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.is_empty() || der.len() > MAX_CERTIFICATE {
            return Err(CertificateError::Size(der.len()));
        }
        let parts = Parts::read(der)?;
        let tbs = TbsCertificate::from_der(parts.tbs)?;
        if tbs.version() != Version::V3 {
            return Err(CertificateError::Version);
        }
        if !is_ecdsa_sha384(tbs.signature()) || tbs.signature() != &parts.algorithm {
            return Err(CertificateError::SignatureAlgorithm);
        }
        let signature = signature_from_der(parts.signature).ok_or(CertificateError::Signature)?;
        let (not_before, not_after) = (
            timestamp(tbs.validity().not_before),
            timestamp(tbs.validity().not_after),
        );
        if not_before > not_after {
            return Err(CertificateError::Validity {
                not_before,
                not_after,
            });
        }
        Ok(Self {
            der: der.to_vec(),
            tbs: parts.tbs.to_vec(),
            signature,
            serial: tbs.serial_number().as_bytes().to_vec(),
            issuer: tbs.issuer().clone(),
            subject: tbs.subject().clone(),
            not_before,
            not_after,
            public_key: public_key(tbs.subject_public_key_info())?,
            extensions: Extensions::read(tbs.extensions().map_or(&[], Vec::as_slice))?,
        })
    }

    /// The DER, as it was parsed or issued.
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The DER in PEM, lines ended by LF.
    pub fn to_pem(&self) -> Result<String, CertificateError> {
        der::pem::encode_string(PEM_LABEL, LineEnding::LF, &self.der)
            .map_err(|error| CertificateError::Der(error.into()))
    }

    /// The key that the certificate vouches for.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The first second of its validity.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// The last second of its validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The serial number, big-endian, as in its INTEGER.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The subject as RFC 4514 writes it, the most specific part first; control characters escaped.
    pub fn subject(&self) -> String {
        self.subject.to_string().escape_debug().to_string()
    }

    /// The issuer, written as [`Certificate::subject`] is.
    pub fn issuer(&self) -> String {
        self.issuer.to_string().escape_debug().to_string()
    }

    /// Whether subject and issuer are the same.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether `issuer`'s subject is this one's issuer, part by part and byte by byte.
    pub(crate) fn names_issuer(&self, issuer: &Certificate) -> bool {
        self.issuer == issuer.subject
    }

    /// Whether `issuer`'s key signed this certificate.
    pub(crate) fn is_signed_by(&self, issuer: &Certificate) -> bool {
        issuer.public_key.verifies(&self.tbs, &self.signature)
    }

    pub(crate) fn subject_name(&self) -> &Name {
        &self.subject
    }

    pub(crate) fn basic_constraints(&self) -> Option<&BasicConstraints> {
        self.extensions.basic_constraints.as_ref()
    }

    pub(crate) fn key_usage(&self) -> Option<&KeyUsage> {
        self.extensions.key_usage.as_ref()
    }

    pub(crate) fn subject_key_id(&self) -> Option<&[u8]> {
        self.extensions.subject_key_id.as_deref()
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject())
            .field("issuer", &self.issuer())
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The three parts of a certificate. The signed part stays as the bytes that were signed.
struct Parts<'a> {
    tbs: &'a [u8],
    algorithm: AlgorithmIdentifierOwned,
    signature: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(der: &'a [u8]) -> Result<Self, der::Error> {
        let mut reader = SliceReader::new(der)?;
        let parts = reader.sequence(|reader| {
            let tbs = reader.tlv_bytes()?;
            let algorithm = AlgorithmIdentifierOwned::decode(reader)?;
            let signature = BitStringRef::decode(reader)?;
            let signature = signature.as_bytes().ok_or_else(|| {
                der::Error::from(der::ErrorKind::Noncanonical {
                    tag: der::Tag::BitString,
                })
            })?;
            Ok::<_, der::Error>(Self {
                tbs,
                algorithm,
                signature,
            })
        })?;
        reader.finish()?;
        Ok(parts)
    }
}

fn is_ecdsa_sha384(algorithm: &AlgorithmIdentifierOwned) -> bool {
    algorithm.oid == ECDSA_WITH_SHA_384 && algorithm.parameters.is_none()
}

fn public_key(spki: &SubjectPublicKeyInfoOwned) -> Result<PublicKey, CertificateError> {
    let curve = spki
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    if spki.algorithm.oid != ID_EC_PUBLIC_KEY || curve != Some(SECP_384_R_1) {
        return Err(CertificateError::PublicKey);
    }
    let point = spki
        .subject_public_key
        .as_bytes()
        .ok_or(CertificateError::PublicKey)?;
    PublicKey::from_sec1(point).map_err(|_| CertificateError::PublicKey)
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_secs(time.to_unix_duration().as_secs())
}

impl Extensions {
    fn read(extensions: &[Extension]) -> Result<Self, CertificateError> {
        let mut read = Self::default();
        for (index, extension) in extensions.iter().enumerate() {
            let id = extension.extn_id;
            if extensions.iter().take(index).any(|other| other.extn_id == id) {
                return Err(CertificateError::DuplicateExtension(id));
            }
            let value = extension.extn_value.as_bytes();
            match id {
                ID_CE_BASIC_CONSTRAINTS => read.basic_constraints = Some(BasicConstraints::from_der(value)?),
                ID_CE_KEY_USAGE => read.key_usage = Some(KeyUsage::from_der(value)?),
                ID_CE_SUBJECT_KEY_IDENTIFIER => {
                    let identifier = SubjectKeyIdentifier::from_der(value)?;
                    read.subject_key_id = Some(identifier.0.as_bytes().to_vec());
                }
                _ if extension.critical => return Err(CertificateError::CriticalExtension(id)),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// Why bytes are not accepted as a certificate of an attestation chain.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Empty or too long.
    #[error("a certificate has 1 to {MAX_CERTIFICATE} bytes, this one {0}")]
    Size(usize),
    /// Not DER, or not an X.509 certificate.
    #[error("not an X.509 certificate in DER")]
    Der(#[from] der::Error),
    /// Version 1 or 2.
    #[error("not a version 3 certificate")]
    Version,
    /// Signed with another algorithm, or the two places that name it differ.
    #[error("the signature's algorithm is not ecdsa-with-SHA384 without parameters")]
    SignatureAlgorithm,
    /// The signature is not a pair of numbers in the range of P-384.
    #[error("the signature is not a P-384 one")]
    Signature,
    /// The key is not on P-384, or not an uncompressed named-curve point.
    #[error("the public key is not an uncompressed point on the named curve P-384 (secp384r1)")]
    PublicKey,
    /// It ends before it begins.
    #[error("the validity ends ({not_after}) before it begins ({not_before})")]
    Validity {
        /// First second.
        not_before: Timestamp,
        /// Last second.
        not_after: Timestamp,
    },
    /// RFC 5280, 4.2: a certificate holds one instance of an extension at most.
    #[error("extension {0} is there twice")]
    DuplicateExtension(ObjectIdentifier),
    /// RFC 5280, 4.2: what is critical and not understood must be refused.
    #[error("critical extension {0} is not supported; only basicConstraints and keyUsage may be critical")]
    CriticalExtension(ObjectIdentifier),
}
