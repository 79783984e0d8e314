//! Documents that the real hypervisor made.

use std::time::Duration;

use attestation::{AttestationContent, Policy, PolicyError, Position, Timestamp, VerifyError, verify};

use crate::authority::{Authority, anything};
use crate::vectors::{DEBUG, GENUINE, PRODUCTION, SIGNED, aws_root, bytes, own_time};

fn content(document: &[u8]) -> AttestationContent {
    let at = own_time(document);
    let verified = verify(document, &aws_root(), at, &anything()).unwrap();
    assert_eq!(verified.cabundle().len(), 4);
    verified.content().clone()
}

#[test]
fn each_is_accepted_at_its_own_time() {
    let debug = content(DEBUG);
    assert_eq!(debug.module_id, "i-026ae32a18c80f866-enc01780356441553dc");
    assert_eq!(debug.timestamp, Timestamp::from_millis(1_614_963_709_526));
    assert_eq!(
        debug.pcrs.keys().copied().collect::<Vec<_>>(),
        (0..16).collect::<Vec<_>>()
    );
    assert_eq!(debug.pcrs[&0], [0; 48]);
    // PCR 4 is H(0^48 ‖ instance id).
    let instance =
        "6e32db11ec7af5927b05c4d9059edfae96f45f50f8b54f59f19f0a093db9085049b01a9759cacbc5922db5aaba0be067";
    assert_eq!(debug.pcrs[&4].to_vec(), bytes(instance));
    assert_eq!(
        (debug.public_key, debug.user_data, debug.nonce),
        (None, None, None)
    );

    let signed = content(SIGNED);
    assert_ne!(signed.pcrs[&8], [0; 48]);
    assert!(signed.nonce.is_some());

    let production = content(PRODUCTION);
    assert_eq!(production.module_id, "i-0bee92034f3d60691-enc01943c5eaab3ad6a");
    assert!(production.public_key.is_some());
    assert_ne!(production.pcrs[&3], [0; 48]);
}

#[test]
fn the_leaf_is_what_it_says() {
    let at = own_time(PRODUCTION);
    let document = verify(PRODUCTION, &aws_root(), at, &Policy::default()).unwrap();
    let leaf = document.leaf();
    assert_eq!(
        leaf.subject(),
        "CN=i-0bee92034f3d60691-enc01943c5eaab3ad6a.eu-central-1.aws,OU=AWS,O=Amazon,L=Seattle,ST=Washington,C=US"
    );
    assert_eq!(leaf.not_before().to_string(), "2025-01-06T16:07:02Z");
    assert_eq!(leaf.not_after().to_string(), "2025-01-06T19:07:05Z");
    assert_eq!(leaf.serial(), bytes("01943c5eaab3ad6a00000000677bffa9"));
}

#[test]
fn at_any_other_time_they_are_not() {
    for (name, document) in GENUINE {
        let root = aws_root();
        let at = |time| verify(document, &root, time, &anything());
        let leaf = at(own_time(document)).unwrap().leaf().clone();

        assert!(at(leaf.not_before()).is_ok(), "{name}");
        assert!(at(leaf.not_after()).is_ok(), "{name}");
        let second = Duration::from_secs(1);
        let early = at(leaf.not_before().before(second)).unwrap_err();
        assert_eq!(
            (early.check(), early.position()),
            ("validity", Some(Position::Leaf)),
            "{name}"
        );
        let late = at(leaf.not_after().after(second)).unwrap_err();
        assert_eq!(
            (late.check(), late.position()),
            ("validity", Some(Position::Leaf)),
            "{name}"
        );

        // An hour after the enclave's certificate, and a day after the host's.
        let late = at(leaf.not_after().after(Duration::from_hours(1))).unwrap_err();
        assert_eq!(
            (late.check(), late.position()),
            ("validity", Some(Position::Leaf)),
            "{name}"
        );
        let late = at(leaf.not_after().after(Duration::from_hours(24))).unwrap_err();
        assert_eq!(
            (late.check(), late.position()),
            ("validity", Some(Position::Bundle(3))),
            "{name}"
        );
        let never = at(Timestamp::from_millis(0)).unwrap_err();
        assert_eq!(
            (never.check(), never.position()),
            ("validity", Some(Position::Root)),
            "{name}"
        );
    }
}

#[test]
fn an_hour_late_is_too_old_for_a_policy_that_says_so() {
    let policy = Policy {
        max_age: Some(Duration::from_mins(30)),
        ..Policy::default()
    };
    let made = own_time(PRODUCTION);
    let at = |time| verify(PRODUCTION, &aws_root(), time, &policy);
    assert!(at(made.after(Duration::from_mins(30))).is_ok());
    let error = at(made.after(Duration::from_hours(1))).unwrap_err();
    assert_eq!(error.check(), "age");
    assert_eq!(error.position(), None);
    assert!(matches!(error, VerifyError::Policy(PolicyError::Age { .. })));
}

#[test]
fn another_root_and_other_measurements_are_refused() {
    for (name, document) in GENUINE {
        let at = own_time(document);
        let error = verify(document, &Authority::new(1).root(), at, &anything()).unwrap_err();
        assert!(matches!(error, VerifyError::Root), "{name}: {error:?}");
        assert_eq!((error.check(), error.position()), ("root", Some(Position::Root)));

        let pcrs = content(document).pcrs;
        for index in 0..16 {
            let mut policy = Policy {
                pcrs: pcrs.clone(),
                ..anything()
            };
            assert!(verify(document, &aws_root(), at, &policy).is_ok(), "{name}");
            policy.pcrs.get_mut(&index).unwrap()[47] ^= 1;
            let error = verify(document, &aws_root(), at, &policy).unwrap_err();
            assert_eq!(error.check(), "pcr", "{name}");
        }
    }
}

#[test]
fn debug_mode_must_be_allowed() {
    let error = verify(DEBUG, &aws_root(), own_time(DEBUG), &Policy::default()).unwrap_err();
    assert!(matches!(error, VerifyError::Policy(PolicyError::Debug)));
    // Someone who pins the zeros that a debug enclave shows has not asked for debug mode either.
    let policy = Policy {
        pcrs: [(0, [0; 48])].into(),
        ..Policy::default()
    };
    let error = verify(DEBUG, &aws_root(), own_time(DEBUG), &policy).unwrap_err();
    assert_eq!(error.check(), "debug");
}

/// The bits, of those that `bits` picks for each byte, that can be flipped without the document being refused.
fn flips_survived(document: &[u8], bits: impl Fn(usize) -> std::ops::Range<u32>) -> Vec<(usize, u32)> {
    let (root, at, policy) = (aws_root(), own_time(document), anything());
    let mut changed = document.to_vec();
    let mut survived = Vec::new();
    for index in 0..document.len() {
        for bit in bits(index) {
            changed[index] ^= 1 << bit;
            if verify(&changed, &root, at, &policy).is_ok() {
                survived.push((index, bit));
            }
            changed[index] = document[index];
        }
    }
    assert_eq!(changed, document);
    survived
}

/// One bit of each byte; which one differs from byte to byte.
fn no_byte_can_be_changed(document: &[u8]) {
    let survived = flips_survived(document, |index| {
        let bit = u32::try_from(index % 8).unwrap();
        bit..bit + 1
    });
    assert_eq!(survived, []);
}

// Three tests, so that they run side by side.

#[test]
fn no_byte_of_a_debug_document_can_be_changed() {
    no_byte_can_be_changed(DEBUG);
}

#[test]
fn no_byte_of_a_signed_enclaves_document_can_be_changed() {
    no_byte_can_be_changed(SIGNED);
}

#[test]
fn no_byte_of_a_production_document_can_be_changed() {
    no_byte_can_be_changed(PRODUCTION);
}

#[test]
#[ignore = "a hundred thousand documents; run in release mode"]
fn no_bit_can_be_changed() {
    for (name, document) in GENUINE {
        assert_eq!(flips_survived(document, |_| 0..8), [], "{name}");
    }
}
