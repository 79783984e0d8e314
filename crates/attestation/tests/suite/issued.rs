//! The certificates that are issued: their shape, dates and limits.

use std::time::Duration;

use attestation::chain::{InstanceId, IssueError, Issuer, Level, ModuleId, Region, issue_root, renew_at};
use attestation::{
    Certificate, KeyError, MAX_CERTIFICATE, PublicKey, SIGNATURE_LEN, SignError, Signer, SoftwareKey,
    Timestamp,
};
use der::Decode;
use x509_cert::Certificate as Decoded;

use crate::authority::{Authority, NOW, TestRng};
use crate::vectors::hex;

/// Critical or not, object identifier and value in hex, of each extension.
fn extensions(certificate: &Certificate) -> Vec<(bool, String, String)> {
    let decoded = Decoded::from_der(certificate.as_der()).unwrap();
    let extensions = decoded.tbs_certificate().extensions().unwrap();
    extensions
        .iter()
        .map(|extension| {
            let value = extension.extn_value.as_bytes();
            let hex = hex(value);
            (extension.critical, extension.extn_id.to_string(), hex)
        })
        .collect()
}

fn expect(certificate: &Certificate, expected: &[(bool, &str, &str)]) {
    let found = extensions(certificate);
    let found: Vec<_> = found
        .iter()
        // Key identifiers are compared with one another elsewhere.
        .map(|(critical, oid, value)| match oid.as_str() {
            "2.5.29.14" | "2.5.29.35" => (*critical, oid.as_str(), ""),
            oid => (*critical, oid, value.as_str()),
        })
        .collect();
    assert_eq!(found, expected, "{}", certificate.subject());
}

const CONSTRAINTS: &str = "2.5.29.19";
const USAGE: &str = "2.5.29.15";
const SUBJECT_ID: (bool, &str, &str) = (false, "2.5.29.14", "");
const ISSUER_ID: (bool, &str, &str) = (false, "2.5.29.35", "");

#[test]
fn each_level_has_the_genuine_extensions_in_their_order() {
    let authority = Authority::new(1);
    let [root, regional, zonal, host] = authority.bundle.certificates() else {
        panic!("four authorities")
    };
    let all = (true, USAGE, "03020186");
    expect(root, &[(true, CONSTRAINTS, "30030101ff"), SUBJECT_ID, all]);
    expect(
        regional,
        &[
            (true, CONSTRAINTS, "30060101ff020102"),
            ISSUER_ID,
            SUBJECT_ID,
            all,
        ],
    );
    expect(
        zonal,
        &[
            (true, CONSTRAINTS, "30060101ff020101"),
            ISSUER_ID,
            SUBJECT_ID,
            all,
        ],
    );
    let sign = (true, USAGE, "03020204");
    expect(
        host,
        &[
            (true, CONSTRAINTS, "30060101ff020100"),
            sign,
            SUBJECT_ID,
            ISSUER_ID,
        ],
    );
    expect(
        &authority.leaf,
        &[(true, CONSTRAINTS, "3000"), (false, USAGE, "030206c0")],
    );
}

#[test]
fn key_identifiers_lead_from_one_level_to_the_next() {
    let authority = Authority::new(1);
    let value = |certificate: &Certificate, oid: &str| {
        let found = extensions(certificate)
            .into_iter()
            .find(|(_, found, _)| found == oid);
        found.unwrap().2
    };
    for pair in authority.bundle.certificates().windows(2) {
        let issuer = value(&pair[0], "2.5.29.14");
        let (tag, id) = issuer.split_at(4);
        assert_eq!((tag, id.len()), ("0414", 40));
        assert_eq!(value(&pair[1], "2.5.29.35"), format!("30168014{id}"));
        assert_ne!(value(&pair[1], "2.5.29.14"), issuer);
    }
}

#[test]
fn names_are_our_own() {
    let authority = Authority::new(1);
    let subjects: Vec<String> = authority
        .bundle
        .certificates()
        .iter()
        .chain([&authority.leaf])
        .map(Certificate::subject)
        .collect();
    let (regional, zonal) = (&subjects[1], &subjects[2]);
    assert_eq!(subjects[0], "CN=enclaved root,OU=enclaves,O=enclaved,C=XX");
    assert!(
        regional.ends_with(".eu-central-1.enclaved,OU=enclaves,O=enclaved,C=XX"),
        "{regional}"
    );
    assert_eq!(regional.find('.'), Some("CN=".len() + 16), "{regional}");
    assert!(
        zonal.starts_with("L=Unknown,ST=Unknown,C=XX,O=enclaved,OU=enclaves,CN="),
        "{zonal}"
    );
    assert!(zonal.ends_with(".zonal.eu-central-1.enclaved"), "{zonal}");
    let place = "OU=enclaves,O=enclaved,L=Unknown,ST=Unknown,C=XX";
    assert_eq!(
        subjects[3],
        format!("CN=i-0bee92034f3d60691.eu-central-1.enclaved,{place}")
    );
    let leaf = "CN=i-0bee92034f3d60691-enc01943c5eaab3ad6a.eu-central-1.enclaved";
    assert_eq!(subjects[4], format!("{leaf},{place}"));
    for subject in subjects {
        let subject = subject.to_lowercase();
        assert!(
            !subject.contains("amazon") && !subject.contains("aws"),
            "{subject}"
        );
    }
}

#[test]
fn strings_and_dates_are_encoded_as_in_the_genuine_chain() {
    let authority = Authority::new(1);
    let has = |certificate: &Certificate, bytes: &[u8]| {
        certificate
            .as_der()
            .windows(bytes.len())
            .any(|window| window == bytes)
    };
    let root = authority.bundle.root();
    assert!(
        has(root, b"\x06\x03\x55\x04\x06\x13\x02XX"),
        "C is a PrintableString"
    );
    assert!(
        has(root, b"\x06\x03\x55\x04\x0a\x0c\x08enclaved"),
        "O is a UTF8String"
    );
    assert!(
        has(root, b"\x06\x03\x55\x04\x03\x0c\x0denclaved root"),
        "CN is a UTF8String"
    );
    assert!(
        has(root, b"\x17\x0d260101000000Z\x18\x0f20560101000000Z"),
        "UTCTime to 2049, then GeneralizedTime"
    );
    assert!(has(
        &authority.leaf,
        b"\x17\x0d251231235957Z\x17\x0d260101030000Z"
    ));
}

#[test]
fn lifetimes_are_the_genuine_ones() {
    let authority = Authority::new(1);
    let all = authority.bundle.certificates().iter().chain([&authority.leaf]);
    let seconds: Vec<u64> = all
        .map(|certificate| {
            certificate
                .not_before()
                .distance(certificate.not_after())
                .as_secs()
        })
        .collect();
    let day = 86_400;
    assert_eq!(
        seconds,
        [10_957 * day, 20 * day + 3600, 6 * day, day, 3 * 3600 + 3]
    );
    assert_eq!(authority.leaf.not_before(), NOW.before(Duration::from_secs(3)));
}

#[test]
fn serial_numbers_have_their_lengths_and_the_leafs_says_which_and_when() {
    for seed in 0..8 {
        let authority = Authority::new(seed);
        let lengths: Vec<usize> = authority
            .bundle
            .certificates()
            .iter()
            .map(|certificate| certificate.serial().len())
            .collect();
        assert_eq!(lengths, [16, 16, 16, 20]);
    }
    let leaf = Authority::new(1).leaf;
    assert_eq!(
        leaf.serial(),
        [0x0194_3c5e_aab3_ad6a_u64, NOW.as_secs()]
            .map(u64::to_be_bytes)
            .concat()
    );
}

#[test]
fn what_is_issued_is_small() {
    let authority = Authority::new(1);
    let sizes: Vec<usize> = authority
        .bundle
        .certificates()
        .iter()
        .chain([&authority.leaf])
        .map(|certificate| certificate.as_der().len())
        .collect();
    println!("bytes from root to leaf: {sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 800), "{sizes:?}");
}

#[test]
fn the_longest_names_fit() {
    let authority = Authority::new(1);
    let region: Region = "abcdefghijklmno".parse().unwrap();
    let instance: InstanceId = "i-0123456789abcdef0".parse().unwrap();
    let key = authority.leaf_key.public_key();
    let module = ModuleId {
        instance,
        slot_uid: u64::MAX,
    };
    let issuer = Issuer::new(authority.bundle.host(), &authority.host_key).unwrap();
    let leaf = issuer.issue_enclave(&module, &region, &key, NOW).unwrap();
    let subject = leaf.subject();
    let common_name = subject.split(',').next().unwrap().strip_prefix("CN=").unwrap();
    assert_eq!(common_name.len(), 64, "RFC 5280's limit");
    // The first bit is set, and a serial number is positive.
    assert_eq!(
        leaf.serial()[..9],
        [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
    );
    assert!(leaf.as_der().len() <= MAX_CERTIFICATE);
}

#[test]
fn names_that_do_not_fit_are_refused() {
    for good in ["a", "eu-central-1", "abcdefghijklmno"] {
        assert_eq!(good.parse::<Region>().unwrap().to_string(), good);
    }
    for bad in ["", "abcdefghijklmnop", "EU", "a.b", "a b", "é", "a\n"] {
        assert!(bad.parse::<Region>().is_err(), "{bad:?}");
    }
    for good in ["i-0000000000000000", "i-0123456789abcdef0"] {
        assert_eq!(good.parse::<InstanceId>().unwrap().to_string(), good);
    }
    for bad in ["", "i-0123456789abcdef01", "i_0"] {
        assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
    }
    let message = "EU".parse::<Region>().unwrap_err().to_string();
    assert_eq!(
        message,
        "a region must have 1 to 15 lower-case letters, digits and hyphens, and is \"EU\""
    );
}

#[test]
fn nothing_outlives_its_issuer() {
    let authority = Authority::new(1);
    let issuer = Issuer::new(authority.bundle.host(), &authority.host_key).unwrap();
    let last = authority
        .bundle
        .host()
        .not_after()
        .before(Level::Enclave.lifetime());
    let key = authority.leaf_key.public_key();
    let issue = |at| issuer.issue_enclave(&authority.module, &authority.region, &key, at);
    let leaf = issue(last).unwrap();
    assert_eq!(leaf.not_after(), authority.bundle.host().not_after());
    let error = issue(last.after(Duration::from_secs(1))).unwrap_err();
    assert!(matches!(error, IssueError::OutlivesIssuer { .. }), "{error:?}");
}

#[test]
fn renewal_is_due_while_the_level_below_still_fits() {
    let authority = Authority::new(1);
    let hour = Duration::from_hours(1);
    let due = |level, index: usize| {
        let certificate = &authority.bundle.certificates()[index];
        let due = renew_at(level, certificate);
        (
            certificate.not_after().distance(due),
            due < certificate.not_after(),
        )
    };
    assert_eq!(due(Level::Root, 0), (20 * 24 * hour + 2 * hour, true));
    assert_eq!(due(Level::Regional, 1), (6 * 24 * hour + hour, true));
    assert_eq!(due(Level::Zonal, 2), (25 * hour, true));
    assert_eq!(due(Level::Host, 3), (4 * hour, true));
    assert_eq!(
        renew_at(Level::Enclave, &authority.leaf),
        authority.leaf.not_after().before(hour)
    );
}

#[test]
fn only_the_certificates_key_issues() {
    let authority = Authority::new(1);
    let error = Issuer::new(authority.bundle.host(), &authority.leaf_key).unwrap_err();
    assert!(matches!(error, IssueError::Key));
}

#[test]
fn dates_that_no_certificate_has_are_refused() {
    let rng = &mut TestRng::new(1);
    let key = SoftwareKey::generate(rng);
    let error = issue_root(&key, Timestamp::from_secs(300_000_000_000), rng).unwrap_err();
    assert!(matches!(error, IssueError::Time(_)), "{error:?}");
}

/// A key in a device that is broken in one of two ways.
struct BrokenDevice {
    key: SoftwareKey,
    signature: Option<[u8; SIGNATURE_LEN]>,
}

impl Signer for BrokenDevice {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    fn sign(&self, _: &[u8]) -> Result<[u8; SIGNATURE_LEN], SignError> {
        self.signature.ok_or_else(|| SignError("unplugged".into()))
    }
}

#[test]
fn a_device_that_fails_issues_nothing() {
    let rng = &mut TestRng::new(1);
    let mut device = BrokenDevice {
        key: SoftwareKey::generate(rng),
        signature: None,
    };
    let error = issue_root(&device, NOW, rng).unwrap_err();
    assert!(matches!(error, IssueError::Sign(_)), "{error:?}");
    device.signature = Some([0; SIGNATURE_LEN]);
    let error = issue_root(&device, NOW, rng).unwrap_err();
    assert!(matches!(error, IssueError::Signature), "{error:?}");
}

#[test]
fn keys_go_through_pkcs8() {
    let key = SoftwareKey::generate(&mut TestRng::new(7));
    let der = key.to_pkcs8_der().unwrap();
    let pem = key.to_pkcs8_pem().unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    for encoded in [der.as_slice(), pem.as_bytes()] {
        let decoded = SoftwareKey::from_pkcs8(encoded).unwrap();
        assert_eq!(decoded.public_key(), key.public_key());
        let signature = decoded.sign(b"message").unwrap();
        assert!(key.public_key().verifies(b"message", &signature));
        assert!(!key.public_key().verifies(b"Message", &signature));
    }
    assert!(
        !format!("{key:?}").contains(|c: char| c.is_ascii_digit()),
        "{key:?}"
    );
}

#[test]
fn what_is_no_key_is_refused() {
    let refused = |key: &[u8]| SoftwareKey::from_pkcs8(key).unwrap_err();
    assert!(matches!(refused(b""), KeyError::Pkcs8));
    assert!(matches!(
        refused(b"-----BEGIN PRIVATE KEY-----\n!\n"),
        KeyError::Pem(_)
    ));
    let certificate = Authority::new(1).leaf.to_pem().unwrap();
    assert!(matches!(refused(certificate.as_bytes()), KeyError::Label(label) if label == "CERTIFICATE"));
    let point = SoftwareKey::generate(&mut TestRng::new(7)).public_key().to_sec1();
    assert!(PublicKey::from_sec1(&point).is_ok());
    let mut off_curve = point.clone();
    off_curve[96] ^= 1;
    let compressed = [&[2 + (point[96] & 1)], &point[1..49]].concat();
    for bad in [&off_curve[..], &compressed, &point[..96], &[], &[0]] {
        assert!(
            matches!(PublicKey::from_sec1(bad), Err(KeyError::Point)),
            "{bad:02x?}"
        );
    }
}

/// RFC 6979, A.2.6: P-384, SHA-384, message "sample".
#[test]
fn signatures_are_those_of_rfc_6979() {
    let scalar =
        "6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5";
    // PKCS#8 around a SEC 1 key without its public key.
    let key = format!("304e020100301006072a8648ce3d020106052b81040022043730350201010430{scalar}");
    let key = SoftwareKey::from_pkcs8(&crate::vectors::bytes(&key)).unwrap();
    let expected = "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46\
                    99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8";
    assert_eq!(
        key.sign(b"sample").unwrap().to_vec(),
        crate::vectors::bytes(expected)
    );
}
