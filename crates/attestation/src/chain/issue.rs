//! Making certificates.

use const_oid::db::rfc5912::{ECDSA_WITH_SHA_384, ID_EC_PUBLIC_KEY, SECP_384_R_1};
use der::asn1::{Any, BitString};
use der::{Decode, Encode, Sequence};
use rand_core::CryptoRng;
use x509_cert::certificate::Version;
use x509_cert::ext::Extensions;
use x509_cert::name::RdnSequence;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use super::{ENCLAVE_BACKDATE, InstanceId, Level, ModuleId, Region, name, profile};
use crate::key::signature_to_der;
use crate::{Certificate, CertificateError, PublicKey, SignError, Signer, Timestamp};

/// Bytes of the random serial numbers.
const SERIAL_LEN: usize = 16;
/// Bytes of a host's.
const HOST_SERIAL_LEN: usize = 20;

/// A root certificate for `key`, signed by itself, valid from `start`.
pub fn issue_root<R: CryptoRng + ?Sized>(
    key: &dyn Signer,
    start: Timestamp,
    rng: &mut R,
) -> Result<Certificate, IssueError> {
    let subject = name::root()?;
    let public_key = key.public_key();
    let to_sign = Request {
        level: Level::Root,
        serial: random_serial::<SERIAL_LEN, R>(rng).to_vec(),
        subject: subject.clone(),
        key: &public_key,
        start,
        end: start.after(Level::Root.lifetime()),
    };
    to_sign.issue(subject, &profile::key_id(&public_key), key)
}

/// An authority that issues the certificates of the level below it.
pub struct Issuer<'a> {
    certificate: &'a Certificate,
    key: &'a dyn Signer,
}

impl<'a> Issuer<'a> {
    /// The authority of `certificate` with its key.
    pub fn new(certificate: &'a Certificate, key: &'a dyn Signer) -> Result<Self, IssueError> {
        if certificate.public_key() != &key.public_key() {
            return Err(IssueError::Key);
        }
        Ok(Self { certificate, key })
    }

    /// A certificate of the regional level for `key`, valid from `start`. The issuer is a root.
    pub fn issue_regional<R: CryptoRng + ?Sized>(
        &self,
        region: &Region,
        key: &PublicKey,
        start: Timestamp,
        rng: &mut R,
    ) -> Result<Certificate, IssueError> {
        let subject = name::regional(rng.next_u64(), region)?;
        let serial = random_serial::<SERIAL_LEN, R>(rng).to_vec();
        self.issue(Level::Regional, subject, serial, key, start)
    }

    /// A certificate of the zonal level for `key`, valid from `start`. The issuer is a regional authority.
    pub fn issue_zonal<R: CryptoRng + ?Sized>(
        &self,
        region: &Region,
        key: &PublicKey,
        start: Timestamp,
        rng: &mut R,
    ) -> Result<Certificate, IssueError> {
        let subject = name::zonal(rng.next_u64(), region)?;
        let serial = random_serial::<SERIAL_LEN, R>(rng).to_vec();
        self.issue(Level::Zonal, subject, serial, key, start)
    }

    /// A certificate of the host `instance` for `key`, valid from `start`. The issuer is a zonal authority.
    pub fn issue_host<R: CryptoRng + ?Sized>(
        &self,
        instance: &InstanceId,
        region: &Region,
        key: &PublicKey,
        start: Timestamp,
        rng: &mut R,
    ) -> Result<Certificate, IssueError> {
        let subject = name::host(instance, region)?;
        let serial = random_serial::<HOST_SERIAL_LEN, R>(rng).to_vec();
        self.issue(Level::Host, subject, serial, key, start)
    }

    /// A certificate of the enclave `module` for `key`, made at `now`. The issuer is a host, ours or an operator's.
    pub fn issue_enclave(
        &self,
        module: &ModuleId,
        region: &Region,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Certificate, IssueError> {
        let subject = name::enclave(module, region)?;
        let serial = [module.slot_uid.to_be_bytes(), now.as_secs().to_be_bytes()].concat();
        self.issue(Level::Enclave, subject, serial, key, now)
    }

    fn issue(
        &self,
        level: Level,
        subject: RdnSequence,
        serial: Vec<u8>,
        key: &PublicKey,
        made: Timestamp,
    ) -> Result<Certificate, IssueError> {
        let end = made.after(level.lifetime());
        let issuer_end = self.certificate.not_after();
        if end.as_secs() > issuer_end.as_secs() {
            return Err(IssueError::OutlivesIssuer { end, issuer_end });
        }
        let backdate = match level {
            Level::Enclave => ENCLAVE_BACKDATE,
            _ => std::time::Duration::ZERO,
        };
        let to_sign = Request {
            level,
            serial,
            subject,
            key,
            start: made.before(backdate),
            end,
        };
        let issuer_id = match self.certificate.subject_key_id() {
            Some(id) => id.to_vec(),
            None => profile::key_id(self.certificate.public_key()).to_vec(),
        };
        let issuer = self.certificate.subject_name().clone().into();
        to_sign.issue(issuer, &issuer_id, self.key)
    }
}

impl std::fmt::Debug for Issuer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuer")
            .field("certificate", self.certificate)
            .finish_non_exhaustive()
    }
}

/// A positive number whose encoding always has `N` bytes.
fn random_serial<const N: usize, R: CryptoRng + ?Sized>(rng: &mut R) -> [u8; N] {
    let mut serial = [0; N];
    rng.fill_bytes(&mut serial);
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    serial
}

/// What a certificate is to say about its subject.
struct Request<'a> {
    level: Level,
    serial: Vec<u8>,
    subject: RdnSequence,
    key: &'a PublicKey,
    start: Timestamp,
    end: Timestamp,
}

impl Request<'_> {
    /// The certificate, signed by `signer`, which is named `issuer` and whose key has the identifier `issuer_id`.
    fn issue(
        self,
        issuer: RdnSequence,
        issuer_id: &[u8],
        signer: &dyn Signer,
    ) -> Result<Certificate, IssueError> {
        let tbs = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&self.serial)?,
            signature: ecdsa_sha384(),
            issuer,
            validity: Validity::new(time(self.start)?, time(self.end)?),
            subject: self.subject,
            subject_public_key_info: spki(self.key)?,
            extensions: profile::extensions(self.level, self.key, issuer_id)?,
        };
        let tbs = tbs.to_der()?;
        let signature = signature_to_der(&signer.sign(&tbs)?).ok_or(IssueError::Signature)?;
        let certificate = SignedCertificate {
            tbs_certificate: Any::from_der(&tbs)?,
            signature_algorithm: ecdsa_sha384(),
            signature: BitString::from_bytes(&signature)?,
        };
        Ok(Certificate::from_der(&certificate.to_der()?)?)
    }
}

/// The fields of RFC 5280, 4.1, that are used here.
#[derive(Sequence)]
struct TbsCertificate {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: RdnSequence,
    validity: Validity,
    subject: RdnSequence,
    subject_public_key_info: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Extensions,
}

/// RFC 5280, 4.1, around the bytes that were signed.
#[derive(Sequence)]
struct SignedCertificate {
    tbs_certificate: Any,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

fn ecdsa_sha384() -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid: ECDSA_WITH_SHA_384,
        parameters: None,
    }
}

fn spki(key: &PublicKey) -> der::Result<SubjectPublicKeyInfoOwned> {
    Ok(SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: ID_EC_PUBLIC_KEY,
            parameters: Some(Any::encode_from(&SECP_384_R_1)?),
        },
        subject_public_key: BitString::from_bytes(&key.to_sec1())?,
    })
}

fn time(at: Timestamp) -> Result<Time, IssueError> {
    at.to_date_time().map(Time::from).ok_or(IssueError::Time(at))
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The key is not the issuing certificate's.
    #[error("the key is not the one that the issuer's certificate vouches for")]
    Key,
    /// It would be valid for longer than its issuer.
    #[error(
        "a certificate until {end} would outlive its issuer, which ends at {issuer_end}; renew the issuer"
    )]
    OutlivesIssuer {
        /// The last second it would be valid.
        end: Timestamp,
        /// The issuer's last second.
        issuer_end: Timestamp,
    },
    /// A date beyond the year 9999.
    #[error("{0} cannot be the date of a certificate")]
    Time(Timestamp),
    /// The key's device failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The key's device gave something that is no P-384 signature.
    #[error("the signer gave no valid P-384 signature")]
    Signature,
    /// The certificate cannot be encoded.
    #[error("the certificate cannot be encoded")]
    Encode(#[from] der::Error),
    /// What was made is not a certificate of the chain: longer than 1024 bytes, since its issuer's name is long.
    #[error("the certificate that was made is not usable")]
    Certificate(#[from] CertificateError),
}
