//! Attestation documents, before a verifier that pins AWS's root and before one that pins ours.

use std::sync::LazyLock;

use attestation::{Policy, SIGNATURE_LEN, TrustAnchor, UnverifiedDocument, verify};

/// Documents that are valid at their own time, and the roots that they lead to. A signature of the genuine ones cannot be
/// made again; the keys of ours are gone.
const VALID: [&[u8]; 5] = [
    include_bytes!("../corpus/attestation-document/genuine-debug-2021-03"),
    include_bytes!("../corpus/attestation-document/genuine-signed-eif-2022-10"),
    include_bytes!("../corpus/attestation-document/genuine-production-2025-01"),
    include_bytes!("../corpus/attestation-document/ours-plain"),
    include_bytes!("../corpus/attestation-document/ours-full-indefinite"),
];

static ROOTS: LazyLock<[TrustAnchor; 2]> = LazyLock::new(|| {
    let roots: [&[u8]; 2] = [
        include_bytes!("../corpus/attestation-certificate/aws-root.pem"),
        include_bytes!("../corpus/attestation-certificate/our-root.pem"),
    ];
    roots.map(|root| TrustAnchor::from_bytes(root).expect("a root"))
});

/// Accepted is only what is in [`VALID`], but for the tag in front and for the signature's bytes: whoever has an ECDSA
/// signature can make another one of the same.
pub(crate) fn check(input: &[u8]) {
    let Ok(document) = UnverifiedDocument::parse(input) else {
        return;
    };
    let policy = Policy {
        allow_debug: true,
        ..Policy::default()
    };
    let at = document.claimed().timestamp;
    let accepted = ROOTS.iter().any(|root| verify(input, root, at, &policy).is_ok());
    assert!(
        !accepted || VALID.iter().any(|valid| signed(valid) == signed(input)),
        "a forgery"
    );
}

/// A document without its tag and signature.
fn signed(document: &[u8]) -> &[u8] {
    let untagged = document.strip_prefix(&[0xd2]).unwrap_or(document);
    untagged
        .get(..untagged.len().saturating_sub(SIGNATURE_LEN))
        .unwrap_or_default()
}

/// [`VALID`] is, so that [`check`] gets as far as the last signature.
#[test]
fn valid_documents_are_accepted() {
    for document in VALID {
        let at = UnverifiedDocument::parse(document)
            .expect("a document")
            .claimed()
            .timestamp;
        let policy = Policy {
            allow_debug: true,
            ..Policy::default()
        };
        assert!(
            ROOTS
                .iter()
                .any(|root| verify(document, root, at, &policy).is_ok())
        );
    }
}
