//! Who can sign, and whose signature is accepted for which image.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use eif::{CoseSign1, Pcr, Section, SectionKind, SignatureSection};
use eif_signature::{Certificate, CertificateError, KeyError, SignatureCheckError, Signer, SignerError};
use proptest::prelude::*;
use test_signer::{Curve, TestSigner};

/// 2024-01-01 and 2025-01-01, in seconds since 1970.
const YEAR_2024: u64 = 1_704_067_200;
const YEAR_2025: u64 = 1_735_689_600;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn pcr0() -> Pcr {
    Pcr::of_data(b"the image")
}

fn signer(of: &TestSigner) -> Signer {
    Signer::new(of.certificate_pem.clone(), &of.key_pem, at(YEAR_2024)).unwrap()
}

fn refused(certificate: &[u8], key: &[u8]) -> SignerError {
    Signer::new(certificate.to_vec(), key, at(YEAR_2024)).unwrap_err()
}

fn check(section: &SignatureSection, pcr0: &Pcr) -> Result<(), SignatureCheckError> {
    Certificate::from_pem(&section.certificate_pem)
        .unwrap()
        .check_signature(&section.cose_sign1, pcr0)
}

#[test]
fn keys_of_each_curve_in_both_forms_sign_and_are_verified() {
    for (curve, header, size) in [
        (Curve::P256, &[0x84, 0x43, 0xa1, 0x01, 0x26][..], 64),
        (Curve::P384, &[0x84, 0x44, 0xa1, 0x01, 0x38, 0x22], 96),
        (Curve::P521, &[0x84, 0x44, 0xa1, 0x01, 0x38, 0x23], 132),
    ] {
        let test = TestSigner::new(curve);
        let from_sec1 = Signer::new(test.certificate_pem.clone(), &test.key_sec1_pem, at(YEAR_2024)).unwrap();

        let section = signer(&test).sign(&pcr0()).unwrap();

        assert_eq!(
            section,
            from_sec1.sign(&pcr0()).unwrap(),
            "signing is deterministic"
        );
        assert_eq!(section.certificate_pem, test.certificate_pem);
        assert_eq!(&section.cose_sign1[..header.len()], header);
        assert_eq!(
            CoseSign1::parse(&section.cose_sign1).unwrap().signature.len(),
            size
        );
        check(&section, &pcr0()).unwrap();
    }
}

#[test]
fn pcr8_is_the_measurement_of_the_der_form() {
    let test = TestSigner::new(Curve::P384);

    assert_eq!(
        signer(&test).certificate().pcr8(),
        Pcr::of_data(&test.certificate_der)
    );
}

#[test]
fn a_signature_is_for_one_image() {
    let section = signer(&TestSigner::new(Curve::P384)).sign(&pcr0()).unwrap();
    let other = Pcr::of_data(b"another image");

    assert!(matches!(
        check(&section, &other),
        Err(SignatureCheckError::OtherImage { signed, measured }) if (signed, measured) == (pcr0(), other)
    ));
}

#[test]
fn a_signature_is_for_one_certificate() {
    let number = |number, curve| TestSigner::numbered(number, curve, "20000101000000Z", "21000101000000Z");
    let with_certificate = |certificate: &TestSigner| SignatureSection {
        certificate_pem: certificate.certificate_pem.clone(),
        ..signer(&number(1, Curve::P384)).sign(&pcr0()).unwrap()
    };

    assert!(check(&with_certificate(&number(1, Curve::P384)), &pcr0()).is_ok());
    assert!(matches!(
        check(&with_certificate(&number(2, Curve::P384)), &pcr0()),
        Err(SignatureCheckError::Invalid)
    ));
    assert!(matches!(
        check(&with_certificate(&number(1, Curve::P256)), &pcr0()),
        Err(SignatureCheckError::OtherAlgorithm { .. })
    ));
}

#[test]
fn certificates_are_valid_from_their_first_to_their_last_second() {
    let test = TestSigner::valid(Curve::P256, "20240101000000Z", "20250101000000Z");
    let certificate = Certificate::from_pem(&test.certificate_pem).unwrap();

    for valid in [YEAR_2024, YEAR_2025] {
        certificate.check_dates(at(valid)).unwrap();
        Signer::new(test.certificate_pem.clone(), &test.key_pem, at(valid)).unwrap();
    }
    let early = certificate.check_dates(at(YEAR_2024 - 1)).unwrap_err();
    assert_eq!(
        early.to_string(),
        "the certificate is not valid before Jan  1 00:00:00 2024 GMT"
    );
    let late = certificate.check_dates(at(YEAR_2025 + 1)).unwrap_err();
    assert_eq!(
        late.to_string(),
        "the certificate has expired: it was valid until Jan  1 00:00:00 2025 GMT"
    );
    for invalid in [YEAR_2024 - 1, YEAR_2025 + 1] {
        let signer = Signer::new(test.certificate_pem.clone(), &test.key_pem, at(invalid));
        assert!(matches!(
            signer,
            Err(SignerError::Certificate(
                CertificateError::NotYetValid { .. } | CertificateError::Expired { .. }
            ))
        ));
    }
}

#[test]
fn the_key_must_be_the_certificates() {
    let other = |curve| TestSigner::numbered(3, curve, "20000101000000Z", "21000101000000Z");
    let test = TestSigner::new(Curve::P384);

    assert!(matches!(
        refused(&test.certificate_pem, &other(Curve::P384).key_pem),
        SignerError::Key(KeyError::OtherKey)
    ));
    for curve in [Curve::P256, Curve::P521] {
        for key in [other(curve).key_pem, other(curve).key_sec1_pem] {
            assert!(matches!(
                refused(&test.certificate_pem, &key),
                SignerError::Key(KeyError::OtherCurve { .. })
            ));
        }
    }
}

#[test]
fn what_is_no_private_key_is_refused_with_what_to_do() {
    let certificate = TestSigner::new(Curve::P384).certificate_pem;
    let block = |label: &str| test_signer::pem(label, &[0x30, 0]);
    let old_encryption = b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
        DEK-Info: AES-256-CBC,00\n\nMAA=\n-----END EC PRIVATE KEY-----\n";

    for (key, expected) in [
        (&b"arn:aws:kms:us-east-1:123456789012:key/1"[..], "no private key"),
        (&block("RSA PRIVATE KEY"), "no private key of an elliptic curve"),
        (&block("ENCRYPTED PRIVATE KEY"), "encrypted"),
        (old_encryption, "encrypted"),
        (b"-----BEGIN PRIVATE KEY-----\nMAA=\n", "malformed private key"),
        (&block("PRIVATE KEY"), "not one for ES384 (P-384)"),
        (&block("EC PRIVATE KEY"), "not one for ES384 (P-384)"),
    ] {
        let message = refused(&certificate, key).to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_is_no_certificate_is_refused() {
    let test = TestSigner::new(Curve::P384);
    assert!(matches!(
        refused(b"junk", &test.key_pem),
        SignerError::Certificate(CertificateError::Pem(_))
    ));
    assert!(matches!(
        refused(&test_signer::pem("CERTIFICATE", &[0x30, 0]), &test.key_pem),
        SignerError::Certificate(CertificateError::Der(_))
    ));
    for length in 0..test.certificate_der.len() {
        assert!(Certificate::from_der(&test.certificate_der[..length]).is_err());
    }
}

#[test]
fn a_key_that_is_no_point_or_on_another_curve_is_not_supported() {
    let test = TestSigner::new(Curve::P384);
    let find = |bytes: &[u8]| {
        let mut windows = test.certificate_der.windows(bytes.len());
        windows.position(|window| window == bytes).unwrap()
    };
    // secp384r1 becomes secp256k1's neighbour in number, which is none of ours; the point loses a bit.
    let curve = find(&[0x2b, 0x81, 4, 0, 34]) + 4;
    for changed in [curve, curve + 20] {
        let mut der = test.certificate_der.clone();
        der[changed] ^= 1;
        assert!(matches!(
            Certificate::from_der(&der),
            Err(CertificateError::UnsupportedKey)
        ));
    }
}

#[test]
fn a_certificate_is_shown_in_openssls_words() {
    let test = TestSigner::valid(Curve::P521, "20240101000000Z", "20250101000000Z");
    let certificate = Certificate::from_pem(&test.certificate_pem).unwrap();

    let issuer: Vec<(String, String)> = certificate.issuer().into_iter().collect();
    let expected = [
        ("commonName", "signer 7"),
        ("countryName", "ZZ"),
        ("organizationName", "Example"),
    ];
    assert_eq!(
        issuer,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    assert_eq!(certificate.algorithm(), "ecdsa-with-SHA512");
    assert_eq!(certificate.not_before().to_string(), "Jan  1 00:00:00 2024 GMT");
    assert_eq!(certificate.not_after().to_string(), "Jan  1 00:00:00 2025 GMT");
    assert!(test.certificate_der.ends_with(certificate.signature()));
}

/// What a section with one change is: unreadable, not accepted, or by another certificate.
fn is_noticed(original: &Pcr, data: &[u8]) -> bool {
    let section = Section {
        kind: SectionKind::Signature,
        offset: 0,
        size: data.len() as u64,
    };
    let Ok(parsed) = SignatureSection::parse(&section, data) else {
        return true;
    };
    let Ok(certificate) = Certificate::from_pem(&parsed.certificate_pem) else {
        return true;
    };
    certificate.check_signature(&parsed.cose_sign1, &pcr0()).is_err() || certificate.pcr8() != *original
}

#[test]
fn every_flipped_bit_of_a_section_is_noticed() {
    // The test signer's certificate ends its PEM text with a line feed, which nobody looks at.
    let mut section = signer(&TestSigner::new(Curve::P256)).sign(&pcr0()).unwrap();
    section.certificate_pem.pop();
    let pcr8 = Certificate::from_pem(&section.certificate_pem).unwrap().pcr8();
    let data = section.encode();
    assert!(!is_noticed(&pcr8, &data));

    for position in 0..data.len() {
        for bit in 0..8 {
            let mut flipped = data.clone();
            flipped[position] ^= 1 << bit;
            assert!(is_noticed(&pcr8, &flipped), "bit {bit} of byte {position}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_signature_makes_it_invalid() {
    for curve in Curve::ALL {
        let section = signer(&TestSigner::new(curve)).sign(&pcr0()).unwrap();
        let certificate = Certificate::from_pem(&section.certificate_pem).unwrap();
        for position in 0..section.cose_sign1.len() {
            let mut flipped = section.cose_sign1.clone();
            flipped[position] ^= 1 << (position % 8);
            assert!(
                certificate.check_signature(&flipped, &pcr0()).is_err(),
                "{curve:?}, byte {position}"
            );
        }
    }
}

/// Made once for all cases.
static CERTIFICATE: LazyLock<Vec<u8>> = LazyLock::new(|| TestSigner::new(Curve::P256).certificate_der);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_a_certificate_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Certificate::from_der(&bytes);
    }

    #[test]
    fn damaged_certificates_are_parsed_or_refused(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut der = CERTIFICATE.clone();
        for (position, byte) in changes {
            let position = position.index(der.len());
            der[position] = byte;
        }
        if let Ok(certificate) = Certificate::from_der(&der) {
            let _ = (certificate.issuer(), certificate.algorithm(), certificate.not_after().to_string());
            let _ = certificate.check_dates(at(YEAR_2024));
        }
    }
}
