//! Which extensions the certificates of a level have, in which order.

use const_oid::AssociatedOid;
use der::Encode;
use der::asn1::OctetString;
use sha2::{Digest, Sha256};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};

use super::Level;
use crate::PublicKey;

/// Bytes of a key identifier.
const KEY_ID_LEN: usize = 20;

/// The extensions of a certificate of `key`, issued by the key with the identifier `issuer`.
pub(super) fn extensions(level: Level, key: &PublicKey, issuer: &[u8]) -> der::Result<Vec<Extension>> {
    let authority = KeyUsages::DigitalSignature | KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    let subject_id = || subject_key_id(&key_id(key));
    let issuer_id = || authority_key_id(issuer);
    match level {
        Level::Root => [authority_constraints(None), subject_id(), usage(true, authority)]
            .into_iter()
            .collect(),
        Level::Regional => [
            authority_constraints(Some(2)),
            issuer_id(),
            subject_id(),
            usage(true, authority),
        ]
        .into_iter()
        .collect(),
        Level::Zonal => [
            authority_constraints(Some(1)),
            issuer_id(),
            subject_id(),
            usage(true, authority),
        ]
        .into_iter()
        .collect(),
        Level::Host => [
            authority_constraints(Some(0)),
            usage(true, KeyUsages::KeyCertSign),
            subject_id(),
            issuer_id(),
        ]
        .into_iter()
        .collect(),
        Level::Enclave => [
            constraints(false, None),
            usage(false, KeyUsages::DigitalSignature | KeyUsages::NonRepudiation),
        ]
        .into_iter()
        .collect(),
    }
}

/// RFC 7093, 2, method 1: the leftmost 160 bits of the SHA-256 of the key's BIT STRING.
pub(super) fn key_id(key: &PublicKey) -> [u8; KEY_ID_LEN] {
    let digest = Sha256::digest(key.to_sec1());
    let mut id = [0; KEY_ID_LEN];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    id
}

fn authority_constraints(path_len: Option<u8>) -> der::Result<Extension> {
    constraints(true, path_len)
}

fn constraints(ca: bool, path_len_constraint: Option<u8>) -> der::Result<Extension> {
    let value = BasicConstraints {
        ca,
        path_len_constraint,
    };
    extension(true, &value)
}

fn usage(critical: bool, usages: impl Into<der::flagset::FlagSet<KeyUsages>>) -> der::Result<Extension> {
    extension(critical, &KeyUsage(usages.into()))
}

fn subject_key_id(id: &[u8]) -> der::Result<Extension> {
    extension(false, &SubjectKeyIdentifier(OctetString::new(id)?))
}

fn authority_key_id(id: &[u8]) -> der::Result<Extension> {
    let value = AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(id)?),
        ..AuthorityKeyIdentifier::default()
    };
    extension(false, &value)
}

fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> der::Result<Extension> {
    Ok(Extension {
        extn_id: T::OID,
        critical,
        extn_value: OctetString::new(value.to_der()?)?,
    })
}
