//! Everything that a verifier refuses, one thing wrong at a time.

use std::time::Duration;

use attestation::{
    AttestationContent, Certificate, CertificateError, DocumentError, MAX_CERTIFICATE, MAX_DOCUMENT, Policy,
    PolicyError, Position, Signer, SoftwareKey, TrustAnchor, UnverifiedDocument, VerifyError, verify,
};
use const_oid::db::rfc5912::ECDSA_WITH_SHA_256;
use der::asn1::{Any, BitString};
use x509_cert::certificate::Version;

use crate::assembled::{Payload, array, byte_string, text};
use crate::authority::{Authority, NOW, TestRng, anything};
use crate::crafted::{
    BASIC_CONSTRAINTS, CA, CA_PATH_0, CERT_SIGN, Crafted, DIGITAL_SIGNATURE, EXTENDED_KEY_USAGE, KEY_USAGE,
    NAME_CONSTRAINTS, NOT_CA, algorithm, extension, name, validity,
};
use crate::vectors::bytes;

// Certificates.

fn key(seed: u64) -> SoftwareKey {
    SoftwareKey::generate(&mut TestRng::new(seed))
}

fn certificate(change: impl FnOnce(&mut Crafted)) -> Result<Certificate, CertificateError> {
    let key = key(1);
    let mut crafted = Crafted::authority("CN=a", "CN=a", &key.public_key());
    change(&mut crafted);
    Certificate::from_der(&crafted.signed(&key))
}

#[test]
fn certificates_of_another_kind_are_refused() {
    assert!(certificate(|_| ()).is_ok());
    let version = certificate(|certificate| certificate.version = Version::V2);
    assert!(matches!(version, Err(CertificateError::Version)), "{version:?}");

    let inner = certificate(|certificate| certificate.signature = algorithm(ECDSA_WITH_SHA_256));
    assert!(
        matches!(inner, Err(CertificateError::SignatureAlgorithm)),
        "{inner:?}"
    );
    let parameters = certificate(|certificate| certificate.signature.parameters = Some(Any::null()));
    assert!(
        matches!(parameters, Err(CertificateError::SignatureAlgorithm)),
        "{parameters:?}"
    );
    let (key, crafted) = (key(1), Crafted::authority("CN=a", "CN=a", &key(1).public_key()));
    let outer = Certificate::from_der(&crafted.signed_as(&key, ECDSA_WITH_SHA_256));
    assert!(
        matches!(outer, Err(CertificateError::SignatureAlgorithm)),
        "{outer:?}"
    );

    for signature in [
        "",
        "3000",
        "3006020100020100",
        "30060201010201",
        "30080201010201010500",
        "3007020200010201 01",
    ] {
        let der = crafted.with_signature(&bytes(&signature.replace(' ', "")));
        let refused = Certificate::from_der(&der);
        assert!(
            matches!(refused, Err(CertificateError::Signature)),
            "{signature}: {refused:?}"
        );
    }
}

#[test]
fn certificates_of_other_keys_are_refused() {
    let is_key_error = |certificate| matches!(certificate, Err(CertificateError::PublicKey));
    // secp256r1.
    let curve = Any::encode_from(&const_oid::db::rfc5912::SECP_256_R_1).unwrap();
    assert!(is_key_error(certificate(
        |one| one.spki.algorithm.parameters = Some(curve)
    )));
    assert!(is_key_error(certificate(
        |one| one.spki.algorithm.parameters = None
    )));
    assert!(is_key_error(certificate(
        |one| one.spki.algorithm.oid = const_oid::db::rfc5912::RSA_ENCRYPTION
    )));
    assert!(is_key_error(certificate(
        |one| one.spki.subject_public_key = BitString::from_bytes(&[4; 97]).unwrap()
    )));
    let point = key(1).public_key().to_sec1();
    let unused = BitString::new(1, [&point[..96], &[0][..]].concat()).unwrap();
    assert!(is_key_error(certificate(
        |one| one.spki.subject_public_key = unused
    )));
}

#[test]
fn certificates_end_after_they_begin() {
    let second = Duration::from_secs(1);
    assert!(certificate(|one| one.validity = validity(NOW, NOW)).is_ok());
    let reversed = certificate(|one| one.validity = validity(NOW, NOW.before(second)));
    assert!(matches!(reversed, Err(CertificateError::Validity { .. })));
}

#[test]
fn extensions_are_understood_or_not_critical_and_there_once() {
    let with = |extra| certificate(|certificate| certificate.extensions.push(extra));
    assert!(with(extension(EXTENDED_KEY_USAGE, false, "300a06082b06010505070301")).is_ok());
    for (oid, value) in [
        (NAME_CONSTRAINTS, "3000"),
        (EXTENDED_KEY_USAGE, "300a06082b06010505070301"),
    ] {
        let refused = with(extension(oid, true, value)).unwrap_err();
        assert!(matches!(refused, CertificateError::CriticalExtension(found) if found.to_string() == oid));
    }
    for oid in [BASIC_CONSTRAINTS, "1.2.3"] {
        let twice = certificate(|certificate| {
            certificate.extensions = vec![extension(oid, false, CA), extension(oid, false, CA)];
        });
        assert!(
            matches!(twice, Err(CertificateError::DuplicateExtension(_))),
            "{twice:?}"
        );
    }
    for (oid, value) in [
        (BASIC_CONSTRAINTS, ""),
        (BASIC_CONSTRAINTS, "30030101ff00"),
        (BASIC_CONSTRAINTS, "3003010101"),
        (KEY_USAGE, "0500"),
        ("2.5.29.14", "0500"),
    ] {
        let refused = certificate(|certificate| certificate.extensions = vec![extension(oid, false, value)]);
        assert!(
            matches!(refused, Err(CertificateError::Der(_))),
            "{oid} {value}: {refused:?}"
        );
    }
}

#[test]
fn certificates_are_exactly_one_and_not_too_long() {
    let der = Authority::new(1).leaf.as_der().to_vec();
    assert!(matches!(
        Certificate::from_der(&[]),
        Err(CertificateError::Size(0))
    ));
    let long = vec![0x30; MAX_CERTIFICATE + 1];
    assert!(matches!(
        Certificate::from_der(&long),
        Err(CertificateError::Size(1025))
    ));
    for len in 1..der.len() {
        assert!(Certificate::from_der(&der[..len]).is_err(), "cut at {len}");
    }
    let trailing = Certificate::from_der(&[&der[..], &[0]].concat());
    assert!(matches!(trailing, Err(CertificateError::Der(_))));
}

// The frame and the payload.

fn offset_of(error: DocumentError) -> (&'static str, usize) {
    match error {
        DocumentError::Expected { expected, offset } => (expected, offset),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_frame_has_one_form_and_a_tag_or_none() {
    let authority = Authority::new(1);
    let document = authority.write(&authority.content());
    let root = authority.root();
    let checked = |document: &[u8]| verify(document, &root, NOW, &anything()).map(|_| ());
    let payload_len = u16::from_be_bytes([document[8], document[9]]).into();
    let (payload, signature) = document[10..].split_at(payload_len);
    let len = &document[8..10];
    let start = [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0];

    checked(&document).unwrap();
    checked(&[&[0xd2], &document[..]].concat()).unwrap();

    let replaced = |at: usize, count: usize, with: &str| {
        [&document[..at], &bytes(with)[..], &document[at + count..]].concat()
    };
    for (what, changed) in [
        ("another tag", replaced(0, 0, "d3")),
        ("the tag in a longer form", replaced(0, 0, "d812")),
        ("the tag twice", replaced(0, 0, "d2d2")),
        ("an array of 5", replaced(0, 1, "85")),
        ("the array's head in a longer form", replaced(0, 1, "9804")),
        (
            "an array without a length",
            [replaced(0, 1, "9f"), vec![0xff]].concat(),
        ),
        ("ES256", replaced(5, 1, "06")),
        ("the protected header in a longer form", replaced(1, 1, "5804")),
        ("an empty protected header", replaced(1, 5, "40")),
        ("an unprotected header", replaced(6, 1, "a10126")),
        ("the unprotected header in a longer form", replaced(6, 1, "b800")),
        ("the unprotected header without a length", replaced(6, 1, "bfff")),
        (
            "the payload's head in a longer form",
            [&start[..], &[0x5a, 0, 0], len, payload, signature].concat(),
        ),
        (
            "the payload in pieces",
            [&start[..], &[0x5f, 0x59], len, payload, &[0xff], signature].concat(),
        ),
        ("a null payload", [&start[..], &[0xf6], signature].concat()),
        (
            "the signature's head in a longer form",
            replaced(10 + payload_len, 2, "590060"),
        ),
        ("a byte after the end", [&document[..], &[0]].concat()),
        (
            "a signature of 95",
            [
                &start[..],
                &[0x59],
                len,
                payload,
                &[0x58, 0x5f],
                &signature[2..97],
            ]
            .concat(),
        ),
        ("nothing", vec![]),
    ] {
        let error = checked(&changed).unwrap_err();
        assert_eq!(error.check(), "format", "{what}: {error:?}");
    }
    for end in 0..document.len() {
        assert!(
            matches!(checked(&document[..end]), Err(VerifyError::Document(_))),
            "cut at {end}"
        );
    }
    let long = UnverifiedDocument::parse(&vec![0; MAX_DOCUMENT + 1]).unwrap_err();
    assert_eq!(long, DocumentError::Size(MAX_DOCUMENT + 1));
    assert_eq!(
        offset_of(UnverifiedDocument::parse(&[0; MAX_DOCUMENT]).unwrap_err()),
        ("an array of 4", 0)
    );
}

fn payload() -> Payload {
    Payload::new(NOW.as_millis(), &[1], &[vec![2]])
}

fn parsed(payload: &Payload) -> Result<AttestationContent, DocumentError> {
    let document = payload.signed(&key(1));
    UnverifiedDocument::parse(&document).map(|document| document.claimed().clone())
}

/// One register of `len` bytes with its index in hex.
fn pcr(index: &str, len: usize) -> Vec<u8> {
    [bytes(index), byte_string(&vec![1; len])].concat()
}

/// The first `count` registers.
fn registers(count: u8) -> Vec<u8> {
    let head = if count < 24 {
        vec![0xa0 | count]
    } else {
        vec![0xb8, count]
    };
    let all = (0..count).map(|index| match index {
        0..24 => pcr(&format!("{index:02x}"), 48),
        _ => pcr(&format!("18{index:02x}"), 48),
    });
    [head, all.collect::<Vec<_>>().concat()].concat()
}

fn long(len: usize) -> Vec<u8> {
    byte_string(&vec![1; len])
}

#[test]
fn each_entry_may_be_as_long_as_its_limit() {
    let good = [
        ("module_id", text(&"x".repeat(300))),
        ("timestamp", bytes("01")),
        ("timestamp", bytes("1a00000001")),
        ("pcrs", registers(32)),
        ("certificate", long(1024)),
        ("cabundle", array(&vec![long(1024); 6])),
        ("public_key", long(1)),
        ("public_key", long(1024)),
        ("user_data", long(0)),
        ("user_data", long(1024)),
        ("nonce", long(0)),
        ("nonce", long(1024)),
    ];
    for (key, value) in good {
        parsed(&payload().with(key, value)).unwrap();
    }
}

#[test]
fn each_entry_has_its_type_and_limits() {
    let bad = [
        ("module_id", text("")),
        ("module_id", byte_string(b"x")),
        ("module_id", bytes("62c328")),
        ("module_id", bytes("780178")),
        ("digest", text("SHA256")),
        ("digest", byte_string(b"SHA384")),
        ("timestamp", bytes("00")),
        ("timestamp", bytes("20")),
        ("timestamp", bytes("c11b0000019b76da0000")),
        ("timestamp", bytes("fb4277b6da00000000")),
        ("pcrs", bytes("a0")),
        ("pcrs", registers(33)),
        ("pcrs", bytes("80")),
        ("pcrs", [bytes("bf"), pcr("00", 48), bytes("ff")].concat()),
        ("pcrs", [bytes("bb7fffffffffffffff"), pcr("00", 48)].concat()),
        ("pcrs", [bytes("a1"), pcr("1820", 48)].concat()),
        ("pcrs", [bytes("a1"), pcr("1800", 48)].concat()),
        ("pcrs", [bytes("a1"), pcr("20", 48)].concat()),
        ("pcrs", [bytes("a1"), pcr("190100", 48)].concat()),
        ("pcrs", [bytes("a1"), pcr("00", 47)].concat()),
        ("pcrs", [bytes("a1"), pcr("00", 32)].concat()),
        ("pcrs", [bytes("a1"), pcr("00", 64)].concat()),
        ("pcrs", [bytes("a2"), pcr("00", 48), pcr("00", 48)].concat()),
        ("pcrs", [bytes("a2"), pcr("01", 48), pcr("00", 48)].concat()),
        ("certificate", long(0)),
        ("certificate", long(1025)),
        ("certificate", bytes("f6")),
        ("cabundle", bytes("80")),
        ("cabundle", array(&vec![long(1); 7])),
        ("cabundle", bytes("9bffffffffffffffff")),
        ("cabundle", array(&[long(0)])),
        ("cabundle", array(&[long(1025)])),
        ("cabundle", long(1)),
        ("public_key", long(0)),
        ("public_key", long(1025)),
        ("public_key", text("key")),
        ("public_key", bytes("f7")),
        ("user_data", long(1025)),
        ("user_data", bytes("80")),
        ("nonce", long(1025)),
        ("nonce", bytes("5f40ff")),
        ("nonce", bytes("5bffffffffffffffff")),
    ];
    for (key, value) in bad {
        let refused = parsed(&payload().with(key, value.clone()));
        assert!(refused.is_err(), "{key}: {value:02x?}");
    }
}

#[test]
fn the_nine_keys_are_there_once_in_order() {
    parsed(&payload()).unwrap();
    let mut indefinite = payload();
    (indefinite.head, indefinite.end) = (vec![0xbf], vec![0xff]);
    assert_eq!(parsed(&indefinite), parsed(&payload()));

    for index in 0..9 {
        let mut missing = payload();
        missing.entries.remove(index);
        assert!(parsed(&missing).is_err(), "{index} missing");
        missing.head = vec![0xa8];
        assert!(parsed(&missing).is_err(), "{index} missing");
        (missing.head, missing.end) = (vec![0xbf], vec![0xff]);
        assert!(parsed(&missing).is_err(), "{index} missing");

        let mut swapped = payload();
        swapped.entries.swap(index, (index + 1) % 9);
        assert!(parsed(&swapped).is_err(), "{index} swapped");

        for (head, end) in [("aa", ""), ("bf", "ff")] {
            let mut twice = payload();
            (twice.head, twice.end) = (bytes(head), bytes(end));
            twice.entries.insert(index, twice.entries[index].clone());
            assert!(parsed(&twice).is_err(), "{index} twice");
        }
        let mut renamed = payload();
        renamed.entries[index].0.push('x');
        assert!(parsed(&renamed).is_err(), "{index} renamed");
    }
    for (head, end) in [
        ("a9", "ff"),
        ("a9", "f6"),
        ("bf", ""),
        ("bf", "ffff"),
        ("b809", ""),
        ("89", ""),
        ("", ""),
    ] {
        let mut framed = payload();
        (framed.head, framed.end) = (bytes(head), bytes(end));
        assert!(parsed(&framed).is_err(), "{head} … {end}");
    }
}

#[test]
fn errors_name_what_belongs_where() {
    let error = parsed(&payload().with("digest", text("MD5"))).unwrap_err();
    // The frame up to the payload has 9 bytes, the head of the map 1, module_id 19, the key digest 7.
    assert_eq!(
        offset_of(error.clone()),
        ("digest: the text SHA384", 9 + 1 + 19 + 7)
    );
    assert_eq!(
        error.to_string(),
        "expected digest: the text SHA384 at offset 0x24"
    );
    // The limits are named in words, too.
    assert_eq!(
        (attestation::MAX_CABUNDLE, attestation::PCR_COUNT, MAX_CERTIFICATE),
        (6, 32, 1024)
    );
}

// The chain. Root, authority, host and leaf, each changed from what is right.

struct Path {
    keys: [SoftwareKey; 4],
    certificates: [Crafted; 4],
}

const SUBJECTS: [&str; 4] = ["CN=root", "CN=middle", "CN=host", "CN=leaf"];

impl Path {
    fn new() -> Self {
        let keys = [10, 11, 12, 13].map(key);
        let certificates = std::array::from_fn(|index| {
            let (subject, issuer) = (SUBJECTS[index], SUBJECTS[index.saturating_sub(1)]);
            let key = keys[index].public_key();
            if index == 3 {
                Crafted::leaf(subject, issuer, &key)
            } else {
                Crafted::authority(subject, issuer, &key)
            }
        });
        Self { keys, certificates }
    }

    fn document(&self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let signers = [0, 0, 1, 2];
        let mut der: Vec<Vec<u8>> = std::iter::zip(&self.certificates, signers)
            .map(|(certificate, signer)| certificate.signed(&self.keys[signer]))
            .collect();
        let leaf = der.pop().unwrap();
        (
            Payload::new(NOW.as_millis(), &leaf, &der).signed(&self.keys[3]),
            der,
        )
    }

    /// The check that fails and for which certificate, with the root that is in the document.
    fn outcome(&self) -> Option<(&'static str, Option<Position>)> {
        let (document, cas) = self.document();
        let root = TrustAnchor::from_bytes(&cas[0]).unwrap();
        let error = verify(&document, &root, NOW, &Policy::default()).err()?;
        Some((error.check(), error.position()))
    }
}

fn changed(index: usize, change: impl FnOnce(&mut Crafted)) -> Option<(&'static str, Option<Position>)> {
    let mut path = Path::new();
    change(&mut path.certificates[index]);
    path.outcome()
}

#[test]
fn each_link_of_the_chain_is_checked() {
    assert_eq!(Path::new().outcome(), None);
    let at = [
        Position::Root,
        Position::Bundle(1),
        Position::Bundle(2),
        Position::Leaf,
    ];
    let second = Duration::from_secs(1);
    for (index, at) in at.into_iter().enumerate() {
        let position = Some(at);
        let late = changed(index, |one| {
            one.validity = validity(NOW.before(2 * second), NOW.before(second));
        });
        assert_eq!(late, Some(("validity", position)));
        let early = changed(index, |one| {
            one.validity = validity(NOW.after(second), NOW.after(2 * second));
        });
        assert_eq!(early, Some(("validity", position)));
        let just = changed(index, |one| one.validity = validity(NOW, NOW));
        assert_eq!(just, None);
    }
    for (index, at) in at.into_iter().enumerate().skip(1) {
        let position = Some(at);
        let misnamed = changed(index, |one| one.issuer = name("CN=other"));
        assert_eq!(misnamed, Some(("issuer-name", position)));
        // The same name as another type of string is another name.
        let retyped = changed(index, |one| {
            let mut der = der::Encode::to_der(&one.issuer).unwrap();
            let tag = der.iter().rposition(|byte| *byte == 0x0c).unwrap();
            der[tag] = 0x13;
            one.issuer = der::Decode::from_der(&der).unwrap();
        });
        assert_eq!(retyped, Some(("issuer-name", position)));
        let unknown = changed(index, |one| {
            one.extensions.push(extension(NAME_CONSTRAINTS, true, "3000"));
        });
        assert_eq!(unknown, Some(("certificate", position)));
        let mut missigned = Path::new();
        // Whoever signs this one has another key than its certificate says.
        missigned.keys[index - 1] = key(99);
        if index == 1 {
            // The root signs itself, so that the root would be refused already.
            let (_, mut cas) = Path::new().document();
            cas[1] = missigned.certificates[1].signed(&key(99));
            let leaf = missigned.certificates[3].signed(&missigned.keys[2]);
            let document = Payload::new(NOW.as_millis(), &leaf, &cas).signed(&missigned.keys[3]);
            let root = TrustAnchor::from_bytes(&cas[0]).unwrap();
            let error = verify(&document, &root, NOW, &Policy::default()).unwrap_err();
            assert_eq!(
                (error.check(), error.position()),
                ("certificate-signature", position)
            );
        } else {
            assert_eq!(missigned.outcome(), Some(("certificate-signature", position)));
        }
    }
}

#[test]
fn authorities_may_issue_and_leaves_may_not() {
    let constraints =
        |value| move |one: &mut Crafted| one.extensions[0] = extension(BASIC_CONSTRAINTS, true, value);
    let usage = |value| move |one: &mut Crafted| one.extensions[1] = extension(KEY_USAGE, true, value);
    let middle = Some(Position::Bundle(1));
    assert_eq!(
        changed(1, constraints(NOT_CA)),
        Some(("basic-constraints", middle))
    );
    assert_eq!(
        changed(1, |one| drop(one.extensions.remove(0))),
        Some(("basic-constraints", middle))
    );
    assert_eq!(changed(1, usage(DIGITAL_SIGNATURE)), Some(("key-usage", middle)));
    assert_eq!(
        changed(1, |one| drop(one.extensions.remove(1))),
        Some(("key-usage", middle))
    );
    assert_eq!(changed(1, constraints(CA_PATH_0)), Some(("path-length", middle)));
    assert_eq!(changed(2, constraints(CA_PATH_0)), None);
    assert_eq!(
        changed(0, constraints("30060101ff020101")),
        Some(("path-length", Some(Position::Root)))
    );
    assert_eq!(changed(0, constraints("30060101ff020102")), None);

    let leaf = Some(Position::Leaf);
    assert_eq!(changed(3, constraints(CA)), Some(("basic-constraints", leaf)));
    assert_eq!(changed(3, |one| drop(one.extensions.remove(0))), None);
    assert_eq!(changed(3, usage(CERT_SIGN)), Some(("key-usage", leaf)));
    assert_eq!(
        changed(3, |one| drop(one.extensions.remove(1))),
        Some(("key-usage", leaf))
    );
}

#[test]
fn the_document_is_signed_by_the_leaf() {
    let mut path = Path::new();
    let (document, cas) = path.document();
    path.keys[3] = key(99);
    let (forged, _) = path.document();
    let root = TrustAnchor::from_bytes(&cas[0]).unwrap();
    assert!(verify(&document, &root, NOW, &Policy::default()).is_ok());
    let error = verify(&forged, &root, NOW, &Policy::default()).unwrap_err();
    assert!(matches!(error, VerifyError::Signature));
    assert_eq!((error.check(), error.position()), ("signature", None));
}

#[test]
fn a_root_in_the_document_is_trusted_for_being_pinned_alone() {
    // Another root of the same name and key, which would verify everything.
    let path = Path::new();
    let (document, _) = path.document();
    let mut twin = path.certificates[0].clone();
    twin.serial_number = x509_cert::serial_number::SerialNumber::new(&[2]).unwrap();
    let twin = TrustAnchor::from_bytes(&twin.signed(&path.keys[0])).unwrap();
    let error = verify(&document, &twin, NOW, &Policy::default()).unwrap_err();
    assert!(matches!(error, VerifyError::Root));
}

// What it says.

#[test]
fn each_expectation_of_a_policy_counts() {
    let authority = Authority::new(1);
    let mut content = authority.content();
    content.nonce = Some(b"nonce".to_vec());
    content.user_data = Some(b"data".to_vec());
    let check = |policy: &Policy, content: &AttestationContent| policy.check(content, NOW);
    let policy = Policy {
        pcrs: content.pcrs.clone(),
        nonce: content.nonce.clone(),
        user_data: content.user_data.clone(),
        allow_debug: false,
        max_age: Some(Duration::from_mins(1)),
    };
    assert_eq!(check(&policy, &content), Ok(()));
    assert_eq!(check(&Policy::default(), &content), Ok(()));

    let changed = |change: fn(&mut AttestationContent)| {
        let mut content = content.clone();
        change(&mut content);
        check(&policy, &content).unwrap_err()
    };
    assert_eq!(changed(|content| content.nonce = None), PolicyError::Nonce);
    assert_eq!(
        changed(|content| content.nonce = Some(b"Nonce".to_vec())),
        PolicyError::Nonce
    );
    assert_eq!(changed(|content| content.user_data = None), PolicyError::UserData);
    assert_eq!(
        changed(|content| content.user_data = Some(vec![])),
        PolicyError::UserData
    );
    assert_eq!(
        changed(|content| {
            content.pcrs.insert(0, [0; 48]);
        }),
        PolicyError::Debug
    );
    assert_eq!(
        changed(|content| {
            content.pcrs.remove(&0);
        }),
        PolicyError::Debug
    );
    let missing = changed(|content| {
        content.pcrs.remove(&3);
    });
    assert!(
        missing
            .to_string()
            .starts_with("PCR 3 is not there, expected 0404"),
        "{missing}"
    );
    let other = changed(|content| {
        content.pcrs.insert(3, [0xee; 48]);
    });
    assert_eq!(
        other.to_string(),
        format!("PCR 3 is {}, expected {}", "ee".repeat(48), "04".repeat(48))
    );

    let aged = |at| policy.check(&content, at);
    let (limit, milli) = (Duration::from_mins(1), Duration::from_millis(1));
    for within in [NOW.after(limit), NOW.before(limit)] {
        assert_eq!(aged(within), Ok(()));
    }
    for beyond in [NOW.after(limit + milli), NOW.before(limit + milli)] {
        let error = aged(beyond).unwrap_err();
        assert_eq!(error.check(), "age");
    }
    let checks = [PolicyError::Debug, PolicyError::Nonce, PolicyError::UserData].map(|error| error.check());
    assert_eq!(checks, ["debug", "nonce", "user-data"]);
}
