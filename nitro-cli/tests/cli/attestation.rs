//! attestation-root and verify-attestation, the latter with genuine documents of AWS's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api::{Reply, Request};
use serde_json::Value;

use crate::fake_daemon::FakeDaemon;
use crate::program::{Finished, Program};

const PRODUCTION: &str = "production-2025-01.cose";
const SIGNED: &str = "signed-eif-2022-10.cose";
const DEBUG: &str = "debug-2021-03.cose";

fn vector(name: &str) -> PathBuf {
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/attestation/tests/vectors");
    Path::new(tests).join(name)
}

/// Verification with AWS's root.
fn verify(document: &Path, more: &[&str]) -> Finished {
    let root = vector("aws-nitro-root-g1.pem");
    let fixed = [
        "verify-attestation".as_ref(),
        "--document".as_ref(),
        document.as_os_str(),
        "--root".as_ref(),
        root.as_os_str(),
    ];
    Program::new(fixed.into_iter().chain(more.iter().map(std::ffi::OsStr::new))).run()
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).expect("standard output is JSON")
}

/// The document was refused for this check, in JSON, in words and by the exit code.
#[track_caller]
fn assert_refused(finished: &Finished, check: &str) {
    assert_eq!(finished.code, 1, "{finished:#?}");
    let answer = json(finished);
    assert_eq!(answer["Verified"], false);
    assert_eq!(answer["Check"], check);
    assert!(!answer["Reason"].as_str().unwrap().is_empty());
    finished.assert_says(&["The document does not pass the check", check]);
}

#[test]
fn the_root_is_what_the_daemon_says() {
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    let daemon = FakeDaemon::replying(vec![Reply::AttestationRoot(pem.into())]);

    let finished = Program::new(["attestation-root"]).daemon(&daemon).run();

    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, pem),
        "{finished:#?}"
    );
    assert_eq!(daemon.finish_one().request, Request::AttestationRoot);
}

#[test]
fn a_genuine_document_verifies_at_its_own_time_and_is_told() {
    let finished = verify(&vector(PRODUCTION), &["--at", "document"]);

    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_eq!(finished.stderr, "");
    let answer = json(&finished);
    assert_eq!(answer["Verified"], true);
    assert_eq!(answer["Digest"], "SHA384");
    assert_eq!(answer["PCRs"].as_object().unwrap().len(), 16);
    let certificates = answer["Certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 5);
    let root = certificates[0]["Subject"].as_str().unwrap();
    assert!(root.contains("aws.nitro-enclaves"), "{root}");
    let pcr0 = answer["PCRs"]["0"].as_str().unwrap();
    let time = answer["Time"].as_str().unwrap();

    let again = verify(
        &vector(PRODUCTION),
        &["--at", time, "--pcr", &format!("0={pcr0}"), "--max-age", "1"],
    );
    assert_eq!(again.code, 0, "{again:#?}");
    let seconds = (answer["Timestamp"].as_u64().unwrap() / 1000).to_string();
    assert_eq!(verify(&vector(PRODUCTION), &["--at", &seconds]).code, 0);
}

#[test]
fn a_nonce_is_compared() {
    let answer = json(&verify(&vector(SIGNED), &["--at", "document"]));
    let nonce = answer["Nonce"].as_str().unwrap();

    let with = |nonce| verify(&vector(SIGNED), &["--at", "document", "--nonce", nonce]);
    assert_eq!(with(nonce).code, 0);
    assert_refused(&with("00"), "nonce");
    assert_refused(
        &verify(&vector(SIGNED), &["--at", "document", "--user-data", "00"]),
        "user-data",
    );
}

#[test]
fn each_check_that_fails_is_named() {
    let production = vector(PRODUCTION);
    // The certificates ended long ago.
    assert_refused(&verify(&production, &[]), "validity");
    assert_refused(
        &verify(&production, &["--at", "2019-11-01T00:00:00Z"]),
        "validity",
    );
    let zero = format!("0={}", "0".repeat(96));
    assert_refused(&verify(&production, &["--at", "document", "--pcr", &zero]), "pcr");
    assert_refused(&verify(&vector(DEBUG), &["--at", "document"]), "debug");
    assert_eq!(
        verify(&vector(DEBUG), &["--at", "document", "--allow-debug"]).code,
        0
    );

    let directory = tempfile::tempdir().unwrap();
    let damaged = directory.path().join("damaged.cose");
    let mut bytes = fs::read(&production).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    assert_refused(&verify(&damaged, &["--at", "document"]), "signature");
    for bytes in [Vec::new(), b"nonsense".to_vec(), vec![0x84; 20_000]] {
        fs::write(&damaged, bytes).unwrap();
        for at in [&[][..], &["--at", "document"]] {
            assert_refused(&verify(&damaged, at), "format");
        }
    }

    let root = vector("operator/chain.pem");
    let other = Program::new([
        "verify-attestation".as_ref(),
        "--document".as_ref(),
        production.as_os_str(),
    ])
    .run();
    assert_eq!(other.code, 2, "a root is needed: {other:#?}");
    let arguments = [
        "--root".as_ref(),
        root.as_os_str(),
        "--document".as_ref(),
        production.as_os_str(),
    ];
    let other = Program::new(["verify-attestation".as_ref()].into_iter().chain(arguments)).run();
    other.assert_failed(3, &["E03"]);
}

#[test]
fn a_document_can_come_from_standard_input() {
    let document = File::open(vector(SIGNED)).unwrap();
    let root = vector("aws-nitro-root-g1.pem");
    let output = Command::new(env!("CARGO_BIN_EXE_nitro-cli"))
        .args([
            "verify-attestation",
            "--document",
            "-",
            "--at",
            "document",
            "--root",
        ])
        .arg(root)
        .stdin(Stdio::from(document))
        .output()
        .unwrap();

    assert!(output.status.success(), "{output:?}");
}

#[test]
fn values_and_files_that_cannot_be_used_are_named() {
    let production = vector(PRODUCTION);
    for (option, value) in [
        ("--pcr", "0"),
        ("--pcr", "32=00"),
        ("--pcr", "0=00"),
        ("--nonce", "0"),
        ("--user-data", "xy"),
        ("--at", "yesterday"),
        ("--max-age", "-1"),
    ] {
        let finished = verify(&production, &[&format!("{option}={value}")]);
        finished.assert_failed(3, &["E03"]);
        finished.assert_says(&[option]);
    }
    let missing = verify(Path::new("/nonexistent/document"), &[]);
    missing.assert_failed(19, &["E19"]);
    missing.assert_says(&["/nonexistent/document"]);
}
