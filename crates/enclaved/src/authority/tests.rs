use super::*;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use attestation::{Policy, TrustAnchor};
use std::collections::BTreeMap;

const INSTANCE: &str = "i-0123456789abcdef0";

fn own(directory: &Path) -> Authority {
    Authority::open(&Source::Own(directory.to_owned()), INSTANCE, "local").unwrap()
}

fn issuer(authority: Authority) -> EnclaveIssuer {
    let id = format!("{INSTANCE}-enc1a2b3c4d5e6f7").parse().unwrap();
    EnclaveIssuer::new(Arc::new(authority), &id).unwrap()
}

fn content(module_id: String, timestamp: Timestamp) -> AttestationContent {
    AttestationContent {
        module_id,
        timestamp,
        pcrs: BTreeMap::from([(0, [7; 48])]),
        public_key: None,
        user_data: None,
        nonce: Some(b"nonce".to_vec()),
    }
}

/// Whether a document that is made at `at` verifies there and then.
fn verifies(issuer: &mut EnclaveIssuer, root: &str, at: Timestamp) -> bool {
    let document = issuer.document(&content(issuer.module_id(), at)).unwrap();
    let root = TrustAnchor::from_bytes(root.as_bytes()).unwrap();
    attestation::verify(&document, &root, at, &Policy::default()).is_ok()
}

#[test]
fn the_first_start_makes_a_root_and_the_next_one_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let first = own(directory.path());
    let root = first.root_pem().unwrap();

    let second = own(directory.path());

    assert_eq!(second.root_pem().unwrap(), root);
    assert!(verifies(&mut issuer(first), &root, now()));
    assert!(verifies(&mut issuer(second), &root, now()));
}

#[test]
fn keys_are_for_root_alone() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("attestation");
    own(&state);

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for entry in fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn certificates_fit_whatever_the_clock_says_and_the_root_stays() {
    let directory = tempfile::tempdir().unwrap();
    let authority = own(directory.path());
    let root = authority.root_pem().unwrap();
    let mut issuer = issuer(authority);
    let start = now();
    let hour = Duration::from_hours(1);
    for hours in [0, 1, 2, 3, 23, 25, 24 * 5, 24 * 7, 24 * 30, 24 * 365 * 10] {
        assert!(
            verifies(&mut issuer, &root, start.after(hour * hours)),
            "{hours} h later"
        );
    }
    // Set back, as far as the root reaches.
    for hours in [0, 12, 25, 24 * 30] {
        assert!(
            verifies(&mut issuer, &root, start.before(hour * hours)),
            "{hours} h earlier"
        );
    }
}

#[test]
fn documents_share_a_certificate_until_it_is_due() {
    let directory = tempfile::tempdir().unwrap();
    let mut issuer = issuer(own(directory.path()));
    let serial = |issuer: &mut EnclaveIssuer, at| {
        issuer.document(&content(issuer.module_id(), at)).unwrap();
        issuer.leaf.as_ref().unwrap().certificate.serial().to_vec()
    };
    let start = now();
    let first = serial(&mut issuer, start);
    assert_eq!(serial(&mut issuer, start.after(Duration::from_mins(119))), first);
    assert_ne!(serial(&mut issuer, start.after(Duration::from_mins(121))), first);
}

#[test]
fn a_damaged_root_is_told_and_never_replaced_and_what_is_below_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let root = own(directory.path()).root_pem().unwrap();
    for file in ["host.pem", "zonal.pem", "regional.pem"] {
        for damage in ["", "nonsense", &root] {
            fs::write(directory.path().join(file), damage).unwrap();
            let authority = own(directory.path());
            assert_eq!(authority.root_pem().unwrap(), root);
            assert!(verifies(&mut issuer(authority), &root, now()), "{file}");
        }
        // A whole one, of another generation.
        let other = tempfile::tempdir().unwrap();
        own(other.path());
        fs::copy(other.path().join(file), directory.path().join(file)).unwrap();
        assert!(
            verifies(&mut issuer(own(directory.path())), &root, now()),
            "{file}"
        );
    }

    for damage in ["", "nonsense", &root] {
        fs::write(directory.path().join("root.pem"), damage).unwrap();
        let error = own(directory.path()).root_pem().unwrap_err();
        assert!(error.to_string().contains("restore it from a backup"), "{error}");
        assert_eq!(
            fs::read_to_string(directory.path().join("root.pem")).unwrap(),
            damage
        );
    }
}

#[test]
fn an_operators_chain_is_used_as_it_is_and_no_key_of_ours_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let operators = directory.path().join("operator");
    let root = own(&operators).root_pem().unwrap();
    let text = |file: &str| fs::read_to_string(operators.join(file)).unwrap();
    let certificate = |file: &str| {
        let text = text(file);
        text[text.find("-----BEGIN CERT").unwrap()..].to_owned()
    };
    let key = directory.path().join("key.pem");
    let host = text("host.pem");
    fs::write(&key, &host[..host.find("-----BEGIN CERT").unwrap()]).unwrap();
    let chain = directory.path().join("chain.pem");
    fs::write(
        &chain,
        ["host.pem", "zonal.pem", "regional.pem", "root.pem"]
            .map(certificate)
            .concat(),
    )
    .unwrap();
    let source = Source::Imported {
        key: key.clone(),
        chain: chain.clone(),
    };

    let authority = Authority::open(&source, INSTANCE, "local").unwrap();
    assert_eq!(authority.root_pem().unwrap(), root);
    assert!(verifies(&mut issuer(authority), &root, now()));

    let refused = || {
        let authority = Authority::open(&source, INSTANCE, "local").unwrap();
        chain_of(&authority.root_pem().unwrap_err())
    };
    fs::write(&chain, certificate("host.pem")).unwrap();
    assert!(refused().contains("the chain of certificates cannot be used"));
    fs::write(&key, "nonsense").unwrap();
    assert!(refused().contains("key.pem"));
    fs::remove_file(&key).unwrap();
    assert!(refused().contains("cannot read"));
}

#[test]
fn names_that_do_not_do_in_certificates_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::Own(directory.path().to_owned());
    for (instance, region) in [
        ("i-1", "Not A Region"),
        ("", "local"),
        ("i-0123456789abcdef01234", "local"),
    ] {
        let error = Authority::open(&source, instance, region).unwrap_err();
        assert!(matches!(error, AuthorityError::Name(_)), "{error}");
    }
}

#[test]
fn a_renewal_that_fails_does_not_take_away_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let authority = own(directory.path());
    let root = authority.root_pem().unwrap();
    let mut issuer = issuer(authority);
    let start = now();
    assert!(verifies(&mut issuer, &root, start));
    fs::remove_dir_all(directory.path()).unwrap();
    fs::write(directory.path(), "no directory").unwrap();

    // The enclave's certificate is due after two hours, the host's after twenty.
    for hours in [1, 2, 5, 10, 20] {
        let at = start.after(Duration::from_hours(hours));
        assert!(verifies(&mut issuer, &root, at), "{hours} h later");
    }
    let too_late = start.after(Duration::from_hours(25));
    let refused = issuer.document(&content(issuer.module_id(), too_late));
    assert!(refused.is_err());
}

#[test]
fn a_copy_of_a_machine_gets_certificates_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let root = own(directory.path()).root_pem().unwrap();
    let source = Source::Own(directory.path().to_owned());

    let other = Authority::open(&source, "i-00000000000000001", "elsewhere").unwrap();

    assert_eq!(other.root_pem().unwrap(), root);
    let host = other.host(now()).unwrap();
    let subject = host.bundle.host().subject();
    assert!(subject.contains("i-00000000000000001.elsewhere."), "{subject}");
}
