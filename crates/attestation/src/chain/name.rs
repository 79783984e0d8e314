//! The names in certificates. Their lengths are limited so that no common name has more than 64 characters (RFC 5280,
//! `ub-common-name`) and no certificate more than 1024 bytes.

use std::fmt;
use std::str::FromStr;

use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519::{
    COMMON_NAME, COUNTRY_NAME, LOCALITY_NAME, ORGANIZATION_NAME, ORGANIZATIONAL_UNIT_NAME, ST,
};
use der::asn1::{Any, PrintableStringRef, Utf8StringRef};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// ISO 3166 leaves this code to its users.
const COUNTRY: &str = "XX";
/// State and locality are there because genuine chains have them; nobody knows where the host is.
const UNKNOWN: &str = "Unknown";
const ORGANIZATION: &str = "enclaved";
const UNIT: &str = "enclaves";
const ROOT: &str = "enclaved root";
const DOMAIN: &str = "enclaved";

/// Characters of a [`Region`].
const MAX_REGION: usize = 15;
/// Characters of an [`InstanceId`]: `i-` and 17 digits.
const MAX_INSTANCE: usize = 19;

/// Where a host is, as its operator names it: 1 to 15 lower-case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region(String);

/// Which host: 1 to 19 lower-case letters, digits and hyphens, normally `i-` and 17 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceId(String);

/// Which enclave: its host and the 64-bit number of its slot, written `<instance>-enc<16 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleId {
    /// The host.
    pub instance: InstanceId,
    /// The slot's number; also the first half of its certificate's serial number.
    pub slot_uid: u64,
}

/// A name that cannot be in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must have 1 to {max} lower-case letters, digits and hyphens, and is {found:?}")]
pub struct NameError {
    what: &'static str,
    max: usize,
    found: String,
}

fn checked(what: &'static str, max: usize, name: &str) -> Result<String, NameError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=max).contains(&name.len()) && name.chars().all(allowed) {
        return Ok(name.to_owned());
    }
    Err(NameError {
        what,
        max,
        found: name.to_owned(),
    })
}

impl FromStr for Region {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        checked("a region", MAX_REGION, name).map(Self)
    }
}

impl FromStr for InstanceId {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        checked("an instance id", MAX_INSTANCE, name).map(Self)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-enc{:016x}", self.instance, self.slot_uid)
    }
}

pub(super) fn root() -> der::Result<RdnSequence> {
    name(&[
        (COUNTRY_NAME, COUNTRY),
        (ORGANIZATION_NAME, ORGANIZATION),
        (ORGANIZATIONAL_UNIT_NAME, UNIT),
        (COMMON_NAME, ROOT),
    ])
}

/// `id` tells authorities of one region apart.
pub(super) fn regional(id: u64, region: &Region) -> der::Result<RdnSequence> {
    name(&[
        (COUNTRY_NAME, COUNTRY),
        (ORGANIZATION_NAME, ORGANIZATION),
        (ORGANIZATIONAL_UNIT_NAME, UNIT),
        (COMMON_NAME, &format!("{id:016x}.{region}.{DOMAIN}")),
    ])
}

/// `id` tells authorities of one region apart.
pub(super) fn zonal(id: u64, region: &Region) -> der::Result<RdnSequence> {
    name(&[
        (COMMON_NAME, &format!("{id:016x}.zonal.{region}.{DOMAIN}")),
        (ORGANIZATIONAL_UNIT_NAME, UNIT),
        (ORGANIZATION_NAME, ORGANIZATION),
        (COUNTRY_NAME, COUNTRY),
        (ST, UNKNOWN),
        (LOCALITY_NAME, UNKNOWN),
    ])
}

pub(super) fn host(instance: &InstanceId, region: &Region) -> der::Result<RdnSequence> {
    located(&format!("{instance}.{region}.{DOMAIN}"))
}

pub(super) fn enclave(module: &ModuleId, region: &Region) -> der::Result<RdnSequence> {
    located(&format!("{module}.{region}.{DOMAIN}"))
}

fn located(common_name: &str) -> der::Result<RdnSequence> {
    name(&[
        (COUNTRY_NAME, COUNTRY),
        (ST, UNKNOWN),
        (LOCALITY_NAME, UNKNOWN),
        (ORGANIZATION_NAME, ORGANIZATION),
        (ORGANIZATIONAL_UNIT_NAME, UNIT),
        (COMMON_NAME, common_name),
    ])
}

/// One attribute in each relative distinguished name, in the order given.
fn name(attributes: &[(ObjectIdentifier, &str)]) -> der::Result<RdnSequence> {
    let mut name = RdnSequence::default();
    for &(oid, value) in attributes {
        let value = if oid == COUNTRY_NAME {
            Any::encode_from(&PrintableStringRef::new(value)?)?
        } else {
            Any::encode_from(&Utf8StringRef::new(value)?)?
        };
        let attribute = AttributeTypeAndValue { oid, value };
        name.push(RelativeDistinguishedName::try_from(vec![attribute])?);
    }
    Ok(name)
}
