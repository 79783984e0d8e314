//! A chain that an operator's own authority issued.

use std::time::Duration;

use attestation::chain::{CaBundle, ImportError, Issuer, ParseError, certificates_from_bytes};
use attestation::{
    Certificate, CertificateError, KeyError, MAX_CABUNDLE, MapForm, PathFault, Policy, Signer, SoftwareKey,
    Timestamp, TrustAnchor, verify, write,
};

use crate::authority::{Authority, NOW, TestRng};
use crate::crafted::{
    BASIC_CONSTRAINTS, CA, CA_PATH_0, CERT_SIGN, Crafted, DIGITAL_SIGNATURE, KEY_USAGE, NOT_CA,
};
use crate::crafted::{extension, name, validity};
use crate::vectors::{OPERATOR_CHAIN, OPERATOR_KEY, OPERATOR_KEY_SEC1};

/// A day after OpenSSL made the chain: 2026-11-27.
const THEN: Timestamp = Timestamp::from_secs(1_795_780_000);

#[test]
fn a_chain_that_openssl_made_signs_documents() {
    let host_key = SoftwareKey::from_pkcs8(OPERATOR_KEY.as_bytes()).unwrap();
    let bundle = CaBundle::import(OPERATOR_CHAIN.as_bytes(), &host_key.public_key(), THEN).unwrap();
    assert_eq!(bundle.root().subject(), "CN=Example root,O=Example GmbH,C=DE");
    assert_eq!(
        bundle.host().subject(),
        "CN=host7.example.com,OU=Enclave hosts,O=Example GmbH,C=DE"
    );

    let ours = Authority::new(1);
    let leaf = Issuer::new(bundle.host(), &host_key)
        .unwrap()
        .issue_enclave(&ours.module, &ours.region, &ours.leaf_key.public_key(), THEN)
        .unwrap();
    let mut content = ours.content();
    content.timestamp = THEN;
    let document = write(&content, &leaf, &bundle, &ours.leaf_key, MapForm::Definite).unwrap();
    let root = TrustAnchor::new(bundle.root().clone()).unwrap();
    let verified = verify(&document, &root, THEN, &Policy::default()).unwrap();
    assert_eq!(verified.content(), &content);
    assert_eq!(verified.cabundle(), bundle.certificates());
    let error = verify(&document, &ours.root(), THEN, &Policy::default()).unwrap_err();
    assert_eq!(error.check(), "root");
}

#[test]
fn an_old_style_key_is_refused_with_the_command_that_converts_it() {
    let error = SoftwareKey::from_pkcs8(OPERATOR_KEY_SEC1.as_bytes()).unwrap_err();
    assert!(matches!(&error, KeyError::Label(label) if label == "EC PRIVATE KEY"));
    assert!(
        error.to_string().contains("openssl pkcs8 -topk8 -nocrypt"),
        "{error}"
    );
}

#[test]
fn order_and_encoding_do_not_matter() {
    let authority = Authority::new(1);
    let key = authority.host_key.public_key();
    let root_first = authority.bundle.certificates();
    let mut root_last = root_first.to_vec();
    root_last.reverse();
    for order in [root_first, &root_last] {
        let der: Vec<u8> = order.iter().flat_map(Certificate::as_der).copied().collect();
        let pem: String = order
            .iter()
            .map(|one| one.to_pem().unwrap() + "# between\n")
            .collect();
        let crlf = pem.replace('\n', "\r\n");
        for chain in [der.as_slice(), pem.as_bytes(), crlf.as_bytes()] {
            assert_eq!(CaBundle::import(chain, &key, NOW).unwrap(), authority.bundle);
        }
    }
}

/// A root, one authority between and a host, each made by `change` from what is right.
struct Chain {
    keys: [SoftwareKey; 3],
    certificates: [Crafted; 3],
}

impl Chain {
    fn new() -> Self {
        let rng = &mut TestRng::new(5);
        let keys: [SoftwareKey; 3] = std::array::from_fn(|_| SoftwareKey::generate(rng));
        let subjects = ["CN=root", "CN=middle", "CN=host"];
        let certificates = std::array::from_fn(|index| {
            let issuer = subjects[index.saturating_sub(1)];
            Crafted::authority(subjects[index], issuer, &keys[index].public_key())
        });
        Self { keys, certificates }
    }

    fn change(index: usize, change: impl FnOnce(&mut Crafted)) -> Self {
        let mut chain = Self::new();
        change(&mut chain.certificates[index]);
        chain
    }

    fn der(&self) -> Vec<Vec<u8>> {
        let signers = [0, 0, 1];
        std::iter::zip(&self.certificates, signers)
            .map(|(certificate, signer)| certificate.signed(&self.keys[signer]))
            .collect()
    }

    fn import(&self) -> Result<CaBundle, ImportError> {
        CaBundle::import(&self.der().concat(), &self.keys[2].public_key(), NOW)
    }
}

fn fault(chain: &Chain, expected_subject: &str) -> (PathFault, String) {
    let error = chain.import().unwrap_err();
    let message = error.to_string();
    match error {
        ImportError::Path { subject, fault } => {
            assert_eq!(subject, expected_subject);
            (fault, message)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_fault_names_the_certificate_and_what_to_change() {
    assert!(Chain::new().import().is_ok());

    let with = |index, oid, value| {
        Chain::change(index, |certificate| {
            let at = usize::from(oid == KEY_USAGE);
            certificate.extensions[at] = extension(oid, true, value);
        })
    };
    let (found, message) = fault(&with(2, BASIC_CONSTRAINTS, NOT_CA), "CN=host");
    assert_eq!(found, PathFault::NotCa);
    assert_eq!(
        message,
        "CN=host: basicConstraints does not make it a CA; issue it with basicConstraints=critical,CA:TRUE"
    );
    let (found, message) = fault(&with(2, KEY_USAGE, DIGITAL_SIGNATURE), "CN=host");
    assert_eq!(found, PathFault::KeyUsage("keyCertSign"));
    assert!(
        message.ends_with("issue it with keyUsage=critical,keyCertSign"),
        "{message}"
    );
    let (found, message) = fault(&with(1, BASIC_CONSTRAINTS, CA_PATH_0), "CN=middle");
    assert_eq!(found, PathFault::PathLength { allowed: 0, below: 1 });
    assert!(
        message.ends_with("issue it with a larger pathlen or none"),
        "{message}"
    );
    assert!(
        with(2, BASIC_CONSTRAINTS, CA_PATH_0).import().is_ok(),
        "a host has none below it"
    );
    let none = Chain::change(1, |certificate| certificate.extensions.clear());
    assert_eq!(fault(&none, "CN=middle").0, PathFault::NotCa);
    let no_usage = Chain::change(0, |certificate| certificate.extensions.truncate(1));
    assert_eq!(fault(&no_usage, "CN=root").0, PathFault::KeyUsage("keyCertSign"));

    let misnamed = Chain::change(2, |certificate| certificate.issuer = name("CN=other"));
    assert_eq!(fault(&misnamed, "CN=host").0, PathFault::IssuerName);
    let mut missigned = Chain::new();
    missigned.keys[1] = SoftwareKey::generate(&mut TestRng::new(6));
    assert_eq!(fault(&missigned, "CN=host").0, PathFault::Signature);
}

#[test]
fn dates_are_checked_at_both_ends() {
    let dated = |from, until| Chain::change(1, |certificate| certificate.validity = validity(from, until));
    let (second, least) = (Duration::from_secs(1), NOW.after(Duration::from_hours(4)));
    assert!(dated(NOW, least).import().is_ok());
    let late = dated(NOW.after(second), NOW.after(Duration::from_hours(24)));
    assert!(matches!(
        fault(&late, "CN=middle").0,
        PathFault::NotYetValid { .. }
    ));
    let expired = dated(NOW.before(2 * second), NOW.before(second));
    assert!(matches!(
        fault(&expired, "CN=middle").0,
        PathFault::Expired { .. }
    ));
    let error = dated(NOW, least.before(second)).import().unwrap_err();
    assert_eq!(
        error.to_string(),
        "CN=middle: valid until 2026-01-01T03:59:59Z, and the time is 2026-01-01T00:00:00Z; \
         issue it again with at least 4 hours left"
    );
}

#[test]
fn a_chain_must_be_whole_and_the_keys() {
    let chain = Chain::new();
    let der = chain.der();
    let key = chain.keys[2].public_key();
    let import = |parts: &[&Vec<u8>]| {
        let chain: Vec<u8> = parts.iter().flat_map(|der| der.iter()).copied().collect();
        CaBundle::import(&chain, &key, NOW).unwrap_err()
    };
    let error = import(&[&der[1], &der[2]]);
    assert!(matches!(&error, ImportError::NoRoot(missing) if missing == "CN=middle" || missing == "CN=root"));
    let gap = import(&[&der[0], &der[2]]);
    assert!(
        matches!(
            gap,
            ImportError::Path {
                fault: PathFault::IssuerName,
                ..
            }
        ),
        "{gap:?}"
    );
    let shuffled = import(&[&der[0], &der[2], &der[1]]);
    assert!(
        matches!(
            shuffled,
            ImportError::Path {
                fault: PathFault::IssuerName,
                ..
            }
        ),
        "{shuffled:?}"
    );
    assert!(matches!(import(&[]), ImportError::Count(0)));

    let error = CaBundle::import(&der.concat(), &chain.keys[1].public_key(), NOW).unwrap_err();
    assert!(matches!(&error, ImportError::Key(subject) if subject == "CN=host"));
}

#[test]
fn a_root_may_be_the_host_and_a_chain_has_a_longest() {
    let rng = &mut TestRng::new(8);
    let keys: Vec<SoftwareKey> = (0..=MAX_CABUNDLE).map(|_| SoftwareKey::generate(rng)).collect();
    let import = |count: usize| {
        let chain: Vec<u8> = (0..count)
            .flat_map(|index| {
                let above = index.saturating_sub(1);
                let key = keys[index].public_key();
                let subject = format!("CN={index}");
                Crafted::authority(&subject, &format!("CN={above}"), &key).signed(&keys[above])
            })
            .collect();
        CaBundle::import(&chain, &keys[count - 1].public_key(), NOW)
    };
    for count in 1..=MAX_CABUNDLE {
        assert_eq!(import(count).unwrap().certificates().len(), count);
    }
    assert!(matches!(import(MAX_CABUNDLE + 1), Err(ImportError::Count(7))));
}

#[test]
fn what_is_no_certificate_is_refused_with_its_place() {
    let good = Authority::new(1).leaf;
    let refused = |bytes: &[u8]| match certificates_from_bytes(bytes) {
        Err(ParseError { index, source }) => (index, source),
        Ok(certificates) => panic!("{certificates:?}"),
    };
    let pem = good.to_pem().unwrap();
    let (index, error) = refused((pem.clone() + "-----BEGIN CERTIFICATE-----\n!!!!\n").as_bytes());
    assert!(
        matches!((index, &error), (1, CertificateError::Der(_))),
        "{error:?}"
    );
    let (index, error) = refused(&[good.as_der(), b"garbage"].concat());
    assert!(
        matches!((index, &error), (1, CertificateError::Der(_))),
        "{error:?}"
    );
    let (index, error) = refused(&[good.as_der(), &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]].concat());
    assert!(
        matches!((index, &error), (1, CertificateError::Der(_))),
        "{error:?}"
    );
    assert!(certificates_from_bytes(b"").unwrap().is_empty());
    let key = SoftwareKey::generate(&mut TestRng::new(1))
        .to_pkcs8_pem()
        .unwrap();
    assert!(
        certificates_from_bytes(key.as_bytes()).unwrap().is_empty(),
        "other blocks are passed over"
    );
    // However long the file, no more than one too many are looked at.
    let many = pem.repeat(1000);
    assert_eq!(
        certificates_from_bytes(many.as_bytes()).unwrap().len(),
        MAX_CABUNDLE + 1
    );
    let many = good.as_der().repeat(1000);
    assert_eq!(certificates_from_bytes(&many).unwrap().len(), MAX_CABUNDLE + 1);
}

#[test]
fn a_pinned_root_is_one_self_signed_authority() {
    let chain = Chain::new();
    let der = chain.der();
    assert!(TrustAnchor::from_bytes(&der[0]).is_ok());
    let message = |bytes: &[u8]| TrustAnchor::from_bytes(bytes).unwrap_err().to_string();
    assert_eq!(
        message(&der.concat()),
        "one root certificate is needed, and there are 3"
    );
    assert_eq!(message(b""), "one root certificate is needed, and there are 0");
    assert_eq!(message(b"x"), "the root cannot be read");
    assert_eq!(message(&der[1]), "the certificate is not a root");
    let unsigned = chain.certificates[0].signed(&chain.keys[1]);
    assert_eq!(message(&unsigned), "the certificate is not a root");
    let not_ca = Chain::change(0, |root| {
        root.extensions[0] = extension(BASIC_CONSTRAINTS, true, NOT_CA);
    });
    assert_eq!(message(&not_ca.der()[0]), "the certificate is not a root");
    let ca_sign = [
        extension(BASIC_CONSTRAINTS, false, CA),
        extension(KEY_USAGE, false, CERT_SIGN),
    ];
    let not_critical = Chain::change(0, |root| root.extensions = ca_sign.to_vec());
    assert!(TrustAnchor::from_bytes(&not_critical.der()[0]).is_ok());
}
