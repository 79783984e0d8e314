//! Certificates with anything wrong with them, made field by field.

use attestation::{PublicKey, Signer, SoftwareKey, Timestamp};
use const_oid::ObjectIdentifier;
use const_oid::db::rfc5912::{ECDSA_WITH_SHA_384, ID_EC_PUBLIC_KEY, SECP_384_R_1};
use der::asn1::{Any, BitString, OctetString};
use der::{Decode, Encode, Sequence};
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::name::RdnSequence;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::authority::NOW;
use crate::vectors::bytes;

pub(crate) const BASIC_CONSTRAINTS: &str = "2.5.29.19";
pub(crate) const KEY_USAGE: &str = "2.5.29.15";
pub(crate) const NAME_CONSTRAINTS: &str = "2.5.29.30";
pub(crate) const EXTENDED_KEY_USAGE: &str = "2.5.29.37";

/// Values of extensions in hex.
pub(crate) const CA: &str = "30030101ff";
pub(crate) const CA_PATH_0: &str = "30060101ff020100";
pub(crate) const NOT_CA: &str = "3000";
pub(crate) const CERT_SIGN: &str = "03020204";
pub(crate) const DIGITAL_SIGNATURE: &str = "03020780";

#[derive(Clone, Sequence)]
pub(crate) struct Crafted {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(crate) version: Version,
    pub(crate) serial_number: SerialNumber,
    pub(crate) signature: AlgorithmIdentifierOwned,
    pub(crate) issuer: RdnSequence,
    pub(crate) validity: Validity,
    pub(crate) subject: RdnSequence,
    pub(crate) spki: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    pub(crate) extensions: Vec<Extension>,
}

#[derive(Sequence)]
struct Signed {
    tbs: Any,
    algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
}

impl Crafted {
    /// An authority without a path length, valid for 30 days from [`NOW`].
    pub(crate) fn authority(subject: &str, issuer: &str, key: &PublicKey) -> Self {
        Self {
            version: Version::V3,
            serial_number: SerialNumber::new(&[1]).unwrap(),
            signature: algorithm(ECDSA_WITH_SHA_384),
            issuer: name(issuer),
            validity: validity(NOW, Timestamp::from_secs(NOW.as_secs() + 30 * 86_400)),
            subject: name(subject),
            spki: SubjectPublicKeyInfoOwned {
                algorithm: AlgorithmIdentifierOwned {
                    oid: ID_EC_PUBLIC_KEY,
                    parameters: Some(Any::encode_from(&SECP_384_R_1).unwrap()),
                },
                subject_public_key: BitString::from_bytes(&key.to_sec1()).unwrap(),
            },
            extensions: vec![
                extension(BASIC_CONSTRAINTS, true, CA),
                extension(KEY_USAGE, true, CERT_SIGN),
            ],
        }
    }

    /// An enclave's certificate.
    pub(crate) fn leaf(subject: &str, issuer: &str, key: &PublicKey) -> Self {
        Self::authority(subject, issuer, key).with(vec![
            extension(BASIC_CONSTRAINTS, true, NOT_CA),
            extension(KEY_USAGE, false, DIGITAL_SIGNATURE),
        ])
    }

    pub(crate) fn with(mut self, extensions: Vec<Extension>) -> Self {
        self.extensions = extensions;
        self
    }

    pub(crate) fn signed(&self, key: &SoftwareKey) -> Vec<u8> {
        self.signed_as(key, ECDSA_WITH_SHA_384)
    }

    /// With the outer one of the two places that name the algorithm saying `outer`.
    pub(crate) fn signed_as(&self, key: &SoftwareKey, outer: ObjectIdentifier) -> Vec<u8> {
        let tbs = self.to_der().unwrap();
        let signature = p384::ecdsa::Signature::from_slice(&key.sign(&tbs).unwrap()).unwrap();
        assemble(&tbs, outer, signature.to_der().as_bytes())
    }

    pub(crate) fn with_signature(&self, signature: &[u8]) -> Vec<u8> {
        assemble(&self.to_der().unwrap(), ECDSA_WITH_SHA_384, signature)
    }
}

fn assemble(tbs: &[u8], outer: ObjectIdentifier, signature: &[u8]) -> Vec<u8> {
    let signed = Signed {
        tbs: Any::from_der(tbs).unwrap(),
        algorithm: algorithm(outer),
        signature: BitString::from_bytes(signature).unwrap(),
    };
    signed.to_der().unwrap()
}

pub(crate) fn algorithm(oid: ObjectIdentifier) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned {
        oid,
        parameters: None,
    }
}

pub(crate) fn validity(from: Timestamp, until: Timestamp) -> Validity {
    let time = |at: Timestamp| {
        let date = der::DateTime::from_unix_duration(std::time::Duration::from_secs(at.as_secs()));
        Time::from(date.unwrap())
    };
    Validity::new(time(from), time(until))
}

pub(crate) fn extension(oid: &str, critical: bool, value: &str) -> Extension {
    Extension {
        extn_id: oid.parse().unwrap(),
        critical,
        extn_value: OctetString::new(bytes(value)).unwrap(),
    }
}

pub(crate) fn name(text: &str) -> RdnSequence {
    text.parse().unwrap()
}
