//! The files in `tests/vectors`; its README says where they are from.

use attestation::{Timestamp, TrustAnchor, UnverifiedDocument};

pub(crate) const DEBUG: &[u8] = include_bytes!("../vectors/debug-2021-03.cose");
pub(crate) const SIGNED: &[u8] = include_bytes!("../vectors/signed-eif-2022-10.cose");
pub(crate) const PRODUCTION: &[u8] = include_bytes!("../vectors/production-2025-01.cose");

/// Each genuine document with its name.
pub(crate) const GENUINE: [(&str, &[u8]); 3] = [
    ("debug-2021-03", DEBUG),
    ("signed-eif-2022-10", SIGNED),
    ("production-2025-01", PRODUCTION),
];

pub(crate) const OPERATOR_CHAIN: &str = include_str!("../vectors/operator/chain.pem");
pub(crate) const OPERATOR_KEY: &str = include_str!("../vectors/operator/host-key.pem");
pub(crate) const OPERATOR_KEY_SEC1: &str = include_str!("../vectors/operator/host-key-sec1.pem");

pub(crate) fn aws_root() -> TrustAnchor {
    TrustAnchor::from_bytes(include_bytes!("../vectors/aws-nitro-root-g1.pem")).unwrap()
}

/// When a document says it was made.
pub(crate) fn own_time(document: &[u8]) -> Timestamp {
    UnverifiedDocument::parse(document).unwrap().claimed().timestamp
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
