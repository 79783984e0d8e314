//! Bytes that nobody meant to be a document or a certificate: refused, without a panic. `cargo xtask fuzz
//! attestation-document attestation-certificate` is for long runs.

use attestation::chain::certificates_from_bytes;
use attestation::{Certificate, SoftwareKey, TrustAnchor, UnverifiedDocument, verify};
use proptest::prelude::*;

use crate::authority::{Authority, TestRng, anything};
use crate::vectors::{GENUINE, OPERATOR_CHAIN, aws_root, own_time};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_are_no_document(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        prop_assert!(UnverifiedDocument::parse(&bytes).is_err());
        prop_assert!(Certificate::from_der(&bytes).is_err());
        prop_assert!(SoftwareKey::from_pkcs8(&bytes).is_err());
        prop_assert!(TrustAnchor::from_bytes(&bytes).is_err());
    }

    #[test]
    fn arbitrary_text_is_no_chain(text in "(-----BEGIN CERTIFICATE-----\n)?[A-Za-z0-9+/=\n]{0,200}(-----END CERTIFICATE-----\n)?") {
        prop_assert!(TrustAnchor::from_bytes(text.as_bytes()).is_err());
    }
}

/// What mutations start from: each kind of input that is parsed.
fn corpus() -> Vec<Vec<u8>> {
    let authority = Authority::new(1);
    let mut corpus: Vec<Vec<u8>> = GENUINE.iter().map(|(_, document)| document.to_vec()).collect();
    let mut content = authority.content();
    content.nonce = Some(b"nonce".to_vec());
    corpus.push(authority.write(&content));
    corpus.push(authority.write_as(&content, attestation::MapForm::Indefinite));
    corpus.extend(
        authority
            .bundle
            .certificates()
            .iter()
            .map(|one| one.as_der().to_vec()),
    );
    corpus.push(authority.leaf.as_der().to_vec());
    corpus.push(OPERATOR_CHAIN.as_bytes().to_vec());
    corpus.push(authority.host_key.to_pkcs8_der().unwrap().to_vec());
    corpus
}

/// Changes one to eight places: a bit, a byte, bytes taken out, put in, doubled, or replaced by a telling value.
fn mutated(original: &[u8], other: &[u8], rng: &mut TestRng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let below = |rng: &mut TestRng, end: usize| (rng.next_u32() as usize) % end.max(1);
    for _ in 0..=below(rng, 8) {
        let at = below(rng, bytes.len());
        let end = (at + 1 + below(rng, 16)).min(bytes.len());
        match below(rng, 7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << below(rng, 8),
            1 if at < bytes.len() => bytes[at] = rng.next_u32().to_be_bytes()[0],
            2 if at < end => drop(bytes.drain(at..end)),
            3 => bytes.insert(at.min(bytes.len()), rng.next_u32().to_be_bytes()[0]),
            4 if at < end => {
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
            5 if at < bytes.len() => {
                bytes[at] = [
                    0x00, 0x1f, 0x3f, 0x5b, 0x5f, 0x7f, 0x80, 0x82, 0x84, 0x9f, 0xbf, 0xf6, 0xff,
                ][below(rng, 13)];
            }
            6 if !other.is_empty() => {
                let from = below(rng, other.len());
                let to = (from + 1 + below(rng, 64)).min(other.len());
                let to_replace = at.min(bytes.len())..end.min(bytes.len()).max(at.min(bytes.len()));
                drop(bytes.splice(to_replace, other[from..to].iter().copied()));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Parses `bytes` as everything, and verifies it if it parses. What is accepted must be a document that is in the corpus,
/// except for the tag in front of it.
fn try_all(bytes: &[u8], corpus: &[Vec<u8>], roots: &[TrustAnchor]) {
    let _ = Certificate::from_der(bytes);
    let _ = certificates_from_bytes(bytes);
    let _ = SoftwareKey::from_pkcs8(bytes);
    if UnverifiedDocument::parse(bytes).is_err() {
        return;
    }
    for root in roots {
        if verify(bytes, root, own_time(bytes), &anything()).is_ok() {
            let untagged = bytes.strip_prefix(&[0xd2]).unwrap_or(bytes);
            assert!(
                corpus.iter().any(|known| known == untagged),
                "accepted: {bytes:02x?}"
            );
        }
    }
}

#[test]
fn mutations_are_refused() {
    let corpus = corpus();
    let roots = [aws_root(), Authority::new(1).root()];
    let rng = &mut TestRng::new(1);
    for known in &corpus {
        try_all(known, &corpus, &roots);
    }
    for _ in 0..5_000 {
        let pick = |rng: &mut TestRng| &corpus[(rng.next_u32() as usize) % corpus.len()];
        let (original, other) = (pick(rng), pick(rng));
        try_all(&mutated(original, other, rng), &corpus, &roots);
    }
}
