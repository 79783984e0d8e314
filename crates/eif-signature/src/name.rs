//! Names of people, attributes and algorithms in a certificate, as OpenSSL writes them.

use std::collections::BTreeMap;

use x509_cert::attr::AttributeValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Tag, Tagged};
use x509_cert::name::Name;

/// Attributes of names (RFC 4519, RFC 2985) by their object identifiers.
const ATTRIBUTES: [(&str, &str); 19] = [
    ("0.9.2342.19200300.100.1.1", "userId"),
    ("0.9.2342.19200300.100.1.25", "domainComponent"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("2.5.4.3", "commonName"),
    ("2.5.4.4", "surname"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "countryName"),
    ("2.5.4.7", "localityName"),
    ("2.5.4.8", "stateOrProvinceName"),
    ("2.5.4.9", "streetAddress"),
    ("2.5.4.10", "organizationName"),
    ("2.5.4.11", "organizationalUnitName"),
    ("2.5.4.12", "title"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "givenName"),
    ("2.5.4.43", "initials"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.65", "pseudonym"),
];

/// Algorithms that certificates are signed with (RFC 4055, RFC 5758, RFC 8410).
const ALGORITHMS: [(&str, &str); 13] = [
    ("1.2.840.10045.4.1", "ecdsa-with-SHA1"),
    ("1.2.840.10045.4.3.1", "ecdsa-with-SHA224"),
    ("1.2.840.10045.4.3.2", "ecdsa-with-SHA256"),
    ("1.2.840.10045.4.3.3", "ecdsa-with-SHA384"),
    ("1.2.840.10045.4.3.4", "ecdsa-with-SHA512"),
    ("1.2.840.113549.1.1.5", "sha1WithRSAEncryption"),
    ("1.2.840.113549.1.1.10", "rsassaPss"),
    ("1.2.840.113549.1.1.11", "sha256WithRSAEncryption"),
    ("1.2.840.113549.1.1.12", "sha384WithRSAEncryption"),
    ("1.2.840.113549.1.1.13", "sha512WithRSAEncryption"),
    ("1.2.840.113549.1.1.14", "sha224WithRSAEncryption"),
    ("1.3.101.112", "ED25519"),
    ("1.3.101.113", "ED448"),
];

/// The attributes of a name.
pub(crate) fn attributes(name: &Name) -> BTreeMap<String, String> {
    name.iter()
        .map(|attribute| (in_words(&ATTRIBUTES, &attribute.oid), text(&attribute.value)))
        .collect()
}

pub(crate) fn of_algorithm(algorithm: &ObjectIdentifier) -> String {
    in_words(&ALGORITHMS, algorithm)
}

/// What is not in the table keeps its number.
fn in_words(table: &[(&str, &str)], identifier: &ObjectIdentifier) -> String {
    let number = identifier.to_string();
    let known = table.iter().find(|(known, _)| *known == number);
    known.map_or(number.as_str(), |(_, words)| words).to_owned()
}

/// A string of any of ASN.1's types. What is not in its type's character set is replaced.
fn text(value: &AttributeValue) -> String {
    let bytes = value.value();
    match value.tag() {
        // In practice Latin-1, as OpenSSL takes it.
        Tag::TeletexString => bytes.iter().copied().map(char::from).collect(),
        Tag::BmpString => {
            let units: Vec<u16> = bytes
                .as_chunks()
                .0
                .iter()
                .map(|unit| u16::from_be_bytes(*unit))
                .collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
