//! Documents that are written: their bytes, and that they say what they were told to.

use std::collections::BTreeMap;
use std::time::Duration;

use attestation::chain::CaBundle;
use attestation::{
    AttestationContent, Certificate, ContentFault, MAX_CABUNDLE, MAX_CERTIFICATE, MAX_FIELD, MapForm, Policy,
    SignError, Signer, SoftwareKey, Timestamp, UnverifiedDocument, WriteError, verify, write,
};
use proptest::prelude::*;

use crate::assembled::{array, byte_string, text};
use crate::authority::{Authority, NOW, TestRng, anything};
use crate::crafted::{Crafted, extension};
use crate::vectors::bytes;

/// The payload of [`full`], item by item.
fn expected_payload(authority: &Authority, form: MapForm) -> Vec<u8> {
    let certificates: Vec<_> = authority
        .bundle
        .certificates()
        .iter()
        .map(|certificate| byte_string(certificate.as_der()))
        .collect();
    let (begin, end) = match form {
        MapForm::Definite => ("a9", ""),
        MapForm::Indefinite => ("bf", "ff"),
    };
    [
        bytes(begin),
        bytes("69"),
        b"module_id".to_vec(),
        bytes("7827"),
        b"i-0bee92034f3d60691-enc01943c5eaab3ad6a".to_vec(),
        bytes("66"),
        b"digest".to_vec(),
        bytes("66"),
        b"SHA384".to_vec(),
        bytes("69"),
        b"timestamp".to_vec(),
        bytes("1b0000019b76daa800"),
        bytes("64"),
        b"pcrs".to_vec(),
        bytes("a3"),
        bytes("00"),
        bytes("5830"),
        vec![0xaa; 48],
        bytes("04"),
        bytes("5830"),
        vec![0xbb; 48],
        bytes("181f"),
        bytes("5830"),
        vec![0xcc; 48],
        bytes("6b"),
        b"certificate".to_vec(),
        byte_string(authority.leaf.as_der()),
        bytes("68"),
        b"cabundle".to_vec(),
        array(&certificates),
        bytes("6a"),
        b"public_key".to_vec(),
        bytes("43010203"),
        bytes("69"),
        b"user_data".to_vec(),
        bytes("f6"),
        bytes("65"),
        b"nonce".to_vec(),
        bytes("40"),
        bytes(end),
    ]
    .concat()
}

fn full(authority: &Authority) -> AttestationContent {
    AttestationContent {
        pcrs: [(0, [0xaa; 48]), (31, [0xcc; 48]), (4, [0xbb; 48])].into(),
        public_key: Some(vec![1, 2, 3]),
        user_data: None,
        nonce: Some(vec![]),
        ..authority.content()
    }
}

#[test]
fn every_byte_is_where_verifiers_look_for_it() {
    let authority = Authority::new(1);
    for form in [MapForm::Definite, MapForm::Indefinite] {
        let payload = expected_payload(&authority, form);
        let document = authority.write_as(&full(&authority), form);
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&bytes("8444a1013822a059")[..], &length].concat();
        assert_eq!(document[..10], head);
        let (written, signature) = document[10..].split_at(payload.len());
        assert_eq!(written, payload);
        let (signature_head, signature) = signature.split_at(2);
        assert_eq!((signature_head, signature.len()), (&[0x58, 0x60][..], 96));
        let signed = [text("Signature1"), bytes("44a101382240"), byte_string(&payload)].concat();
        let signed = [&[0x84], &signed[..]].concat();
        assert!(
            authority
                .leaf
                .public_key()
                .verifies(&signed, signature.try_into().unwrap())
        );
    }
}

#[test]
fn small_timestamps_have_eight_bytes_too() {
    let authority = Authority::new(1);
    let mut content = authority.content();
    content.timestamp = Timestamp::from_millis(5);
    let document = authority.write(&content);
    let expected = b"\x69timestamp\x1b\0\0\0\0\0\0\0\x05\x64pcrs";
    assert!(document.windows(expected.len()).any(|window| window == expected));
    assert_eq!(UnverifiedDocument::parse(&document).unwrap().claimed(), &content);
}

#[test]
fn a_document_of_today_is_verified_with_our_root_alone() {
    let authority = Authority::new(1);
    let content = full(&authority);
    for form in [MapForm::Definite, MapForm::Indefinite] {
        let document = authority.write_as(&content, form);
        let verified = verify(&document, &authority.root(), NOW, &Policy::default()).unwrap();
        assert_eq!(verified.content(), &content);
        assert_eq!(verified.leaf(), &authority.leaf);
        for other in [crate::vectors::aws_root(), Authority::new(2).root()] {
            assert_eq!(
                verify(&document, &other, NOW, &anything()).unwrap_err().check(),
                "root"
            );
        }
    }
}

fn refused(authority: &Authority, change: impl FnOnce(&mut AttestationContent)) -> ContentFault {
    let mut content = authority.content();
    change(&mut content);
    let form = MapForm::Definite;
    match write(
        &content,
        &authority.leaf,
        &authority.bundle,
        &authority.leaf_key,
        form,
    ) {
        Err(WriteError::Content(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_no_document_may_say_is_not_written() {
    let authority = Authority::new(1);
    let refused = |change: fn(&mut AttestationContent)| refused(&authority, change);
    assert_eq!(
        refused(|content| content.module_id.clear()),
        ContentFault::ModuleId
    );
    assert_eq!(
        refused(|content| content.timestamp = Timestamp::from_millis(0)),
        ContentFault::Timestamp
    );
    assert_eq!(refused(|content| content.pcrs.clear()), ContentFault::NoPcrs);
    let index = refused(|content| {
        content.pcrs.insert(32, [0; 48]);
    });
    assert_eq!(index, ContentFault::PcrIndex(32));
    let too_long = |field, min| ContentFault::FieldLength {
        field,
        len: 1025,
        min,
    };
    assert_eq!(
        refused(|content| content.public_key = Some(vec![0; 1025])),
        too_long("public_key", 1)
    );
    assert_eq!(
        refused(|content| content.user_data = Some(vec![0; 1025])),
        too_long("user_data", 0)
    );
    assert_eq!(
        refused(|content| content.nonce = Some(vec![0; 1025])),
        too_long("nonce", 0)
    );
    let empty = refused(|content| content.public_key = Some(vec![]));
    assert_eq!(empty.to_string(), "public_key has 0 bytes; 1 to 1024 are allowed");
}

#[test]
fn only_the_leafs_key_and_issuer_will_do() {
    let (authority, other) = (Authority::new(1), Authority::new(2));
    let content = authority.content();
    let form = MapForm::Definite;
    let error = write(
        &content,
        &authority.leaf,
        &authority.bundle,
        &other.leaf_key,
        form,
    )
    .unwrap_err();
    assert!(matches!(error, WriteError::Key));
    let zonal = authority.bundle.certificates()[..3].to_vec();
    let bundle = CaBundle::new(zonal, NOW).unwrap();
    let error = write(&content, &authority.leaf, &bundle, &authority.leaf_key, form).unwrap_err();
    assert!(matches!(error, WriteError::Issuer));
}

#[test]
fn a_device_that_fails_signs_nothing() {
    struct Unplugged(SoftwareKey);
    impl Signer for Unplugged {
        fn public_key(&self) -> attestation::PublicKey {
            self.0.public_key()
        }
        fn sign(&self, _: &[u8]) -> Result<[u8; 96], SignError> {
            Err(SignError("unplugged".into()))
        }
    }
    let authority = Authority::new(1);
    let device = Unplugged(SoftwareKey::from_pkcs8(&authority.leaf_key.to_pkcs8_der().unwrap()).unwrap());
    let content = authority.content();
    let error = write(
        &content,
        &authority.leaf,
        &authority.bundle,
        &device,
        MapForm::Definite,
    )
    .unwrap_err();
    assert!(matches!(error, WriteError::Sign(_)));
}

/// Pads a certificate with an extension that nobody knows until it has [`MAX_CERTIFICATE`] bytes.
fn padded(certificate: &Crafted, key: &SoftwareKey) -> Certificate {
    let with = |len: usize, filler: u8| {
        let mut certificate = certificate.clone();
        let value = format!("{filler:02x}").repeat(len);
        certificate.extensions.push(extension("1.2.3", false, &value));
        certificate.signed(key)
    };
    let missing = MAX_CERTIFICATE - with(256, 0).len();
    // A signature is a few bytes longer or shorter from one certificate to the next.
    (0..=u8::MAX)
        .map(|filler| with(256 + missing, filler))
        .find(|der| der.len() == MAX_CERTIFICATE)
        .map(|der| Certificate::from_der(&der).unwrap())
        .unwrap()
}

#[test]
fn the_largest_document_fits_in_a_response() {
    let authority = Authority::new(1);
    let key = SoftwareKey::generate(&mut TestRng::new(3));
    let root = padded(&Crafted::authority("CN=root", "CN=root", &key.public_key()), &key);
    let bundle = CaBundle::new(vec![root; MAX_CABUNDLE], NOW).unwrap();
    let leaf = padded(
        &Crafted::leaf("CN=leaf", "CN=root", &authority.leaf_key.public_key()),
        &key,
    );
    let content = AttestationContent {
        pcrs: (0..32).map(|index| (index, [1; 48])).collect(),
        public_key: Some(vec![1; MAX_FIELD]),
        user_data: Some(vec![2; MAX_FIELD]),
        nonce: Some(vec![3; MAX_FIELD]),
        ..authority.content()
    };
    let document = write(&content, &leaf, &bundle, &authority.leaf_key, MapForm::Indefinite).unwrap();
    let response = document.len() + b"\xa1\x6bAttestation\xa1\x68document\x59LL".len();
    assert!(response <= 0x3000, "{response}");
    let root = attestation::TrustAnchor::new(bundle.root().clone()).unwrap();
    assert!(verify(&document, &root, NOW, &Policy::default()).is_ok());

    let long_name = AttestationContent {
        module_id: "i".repeat(0x3000 - response + content.module_id.len() + 1),
        ..content
    };
    let error = write(
        &long_name,
        &leaf,
        &bundle,
        &authority.leaf_key,
        MapForm::Indefinite,
    )
    .unwrap_err();
    assert!(matches!(error, WriteError::Size(_)), "{error:?}");
}

fn contents() -> impl Strategy<Value = AttestationContent> {
    let field = |min| proptest::option::of(proptest::collection::vec(any::<u8>(), min..=MAX_FIELD));
    let pcrs: BoxedStrategy<BTreeMap<u8, [u8; 48]>> =
        proptest::collection::btree_map(0..32_u8, any::<[u8; 48]>(), 1..=32).boxed();
    (
        "\\PC{1,64}",
        0..3 * 3_600_000_u64,
        pcrs,
        field(1),
        field(0),
        field(0),
    )
        .prop_map(
            |(module_id, millis, pcrs, public_key, user_data, nonce)| AttestationContent {
                module_id,
                timestamp: NOW.after(Duration::from_millis(millis)),
                pcrs,
                public_key,
                user_data,
                nonce,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_what_is_verified(content in contents(), indefinite: bool) {
        let authority = Authority::new(1);
        let form = if indefinite { MapForm::Indefinite } else { MapForm::Definite };
        let document = authority.write_as(&content, form);
        let policy = Policy {
            pcrs: content.pcrs.clone(),
            nonce: content.nonce.clone(),
            user_data: content.user_data.clone(),
            max_age: Some(Duration::ZERO),
            allow_debug: true,
        };
        let verified = verify(&document, &authority.root(), content.timestamp, &policy);
        let verified = verified.unwrap();
        prop_assert_eq!(verified.content(), &content);
    }
}
