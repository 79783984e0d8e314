// parent: --cpus 4 --memory 2G --hugepages-2m 256 -- --test-threads 1
//! The example `images/attest`: `attest-client` gives a secret to an enclave that proves what it is, and to no other.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite fails on the spot"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use end_to_end_tests::{Enclave, Finished, Host, Launch, World, parent, run};

/// Of AWS's own enclaves, and so not of those here.
const OTHER_ROOT: &str = include_str!("../../crates/attestation/tests/vectors/aws-nitro-root-g1.pem");

fn attest() -> Launch {
    Launch::of(parent::attest_eif())
}

/// PCR 0 of an image, from its file.
fn pcr0(host: &Host, eif: &Path) -> String {
    let described = host.cli(&["describe-eif", "--eif-path", &eif.to_string_lossy()]);
    let described = described.succeeded().json();
    described["Measurements"]["PCR0"]
        .as_str()
        .expect("PCR0")
        .to_owned()
}

/// A file with these contents.
fn written(path: &str, contents: &str) -> PathBuf {
    fs::write(path, contents).expect("write");
    path.into()
}

/// The root of this machine as a file.
fn own_root(host: &Host) -> PathBuf {
    written(
        "/tmp/root.pem",
        &host.cli(&["attestation-root"]).succeeded().stdout,
    )
}

/// `attest-client` with a secret for the enclave at this CID.
fn give_secret(cid: u32, root: &Path, pcr0: &str) -> Finished {
    let secret = written("/tmp/secret", "for one image alone");
    let mut command = Command::new("attest-client");
    command.args(["--enclave-cid", &cid.to_string()]);
    command.arg("--root").arg(root);
    command.args(["--pcr0", pcr0]);
    run(command.arg("--secret-file").arg(secret))
}

/// The enclave was refused because of this check.
#[track_caller]
fn refused(finished: &Finished, check: &str) {
    assert_eq!(finished.code(), Some(1), "{finished:#?}");
    assert_eq!(finished.stdout, "");
    let begin = format!("Refused, nothing was sent: the document does not pass the check \"{check}\": ");
    assert!(finished.stderr.starts_with(&begin), "{finished:#?}");
}

fn given(enclave: &Enclave, finished: Finished) {
    let finished = finished.succeeded();
    let (instance, slot) = enclave.id.split_once("-enc").expect("an id");
    let begin = format!("Verified {instance}-enc{slot:0>16}, document of 2");
    assert!(finished.stdout.starts_with(&begin), "{finished:#?}");
    assert!(
        finished.stdout.ends_with("The enclave has read the secret\n"),
        "{finished:#?}"
    );
}

#[test]
fn an_enclave_that_proves_what_it_is_reads_the_secret_and_no_other_does() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let root = own_root(&host);
    let expected = pcr0(&host, &parent::attest_eif());
    let enclave = attest().run(&host);
    let cid = enclave.cid();

    // At once: the application may not listen yet.
    given(&enclave, give_secret(cid, &root, &expected));

    refused(
        &give_secret(cid, &root, &pcr0(&host, &parent::hello_eif())),
        "pcr",
    );
    let other_root = written("/tmp/other-root.pem", OTHER_ROOT);
    refused(&give_secret(cid, &other_root, &expected), "root");
    // The refusals were not due to an enclave that answers but once.
    given(&enclave, give_secret(cid, &root, &expected));
    enclave.terminate();
}

#[test]
fn an_enclave_that_may_be_watched_is_refused() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let root = own_root(&host);
    let expected = pcr0(&host, &parent::attest_eif());
    let enclave = attest().in_debug_mode().run(&host);
    let mut console = enclave.console();
    console.wait_for("attest: waiting for a secret");

    refused(&give_secret(enclave.cid(), &root, &expected), "debug");

    console
        .wait_for("attest: no secret: the other side closed the connection in place of the encrypted secret");
    // Nor is it accepted by who expects what its registers hold.
    refused(&give_secret(enclave.cid(), &root, &"0".repeat(96)), "debug");
    assert!(
        !console.stdout().contains("received a secret"),
        "{}",
        console.stdout()
    );
    drop(console);
    enclave.terminate();
}

#[test]
fn without_an_enclave_there_is_an_error_that_says_so() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let finished = give_secret(4444, &own_root(&host), &"1".repeat(96));
    assert_eq!(finished.code(), Some(2), "{finished:#?}");
    let begin = "attest-client: cannot connect to the enclave at CID 4444: ";
    assert!(finished.stderr.starts_with(begin), "{finished:#?}");
}
