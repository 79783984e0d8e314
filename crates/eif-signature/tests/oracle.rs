//! Images that `eif_build`, the tool around AWS's own implementation, has signed, against what is signed and checked here;
//! and OpenSSL's view of our certificates and signatures.
//!
//! The tool is found through `EIF_BUILD_ORACLE` or on `PATH`; `cargo install eif_build --version 0.2.1 --locked` makes it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something unexpected happens"
)]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use eif::{Builder, CoseSign1, inspect};
use eif_signature::{Certificate, Signer};
use test_signer::{Curve, TestSigner};

fn succeeded(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}");
    output
}

fn file(directory: &Path, name: &str, contents: &[u8]) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, contents).unwrap();
    path
}

/// An image of two ramdisks that the tool has signed.
fn signed_by_oracle(directory: &Path, signer: &TestSigner, key: &[u8]) -> Vec<u8> {
    let image = directory.join("image.eif");
    let oracle = std::env::var_os("EIF_BUILD_ORACLE").unwrap_or_else(|| "eif_build".into());
    let mut command = Command::new(oracle);
    command.args(["--cmdline", "console=ttyS0", "--name", "oracle"]);
    for (option, contents) in [
        ("--kernel", &b"a kernel"[..]),
        ("--ramdisk", b"bootstrap"),
        ("--ramdisk", b"application"),
        ("--signing-certificate", &signer.certificate_pem),
        ("--private-key", key),
    ] {
        let name = format!("{option}-{}", contents.len());
        command.arg(option).arg(file(directory, &name, contents));
    }
    succeeded(command.arg("--output").arg(&image));
    fs::read(image).unwrap()
}

#[test]
#[ignore = "needs eif_build; cargo xtask test installs it"]
fn what_the_oracle_has_signed_is_accepted_and_signed_here_in_the_same_bytes_but_r_and_s() {
    for curve in Curve::ALL {
        let test = TestSigner::new(curve);
        for key in [&test.key_pem, &test.key_sec1_pem] {
            let directory = tempfile::tempdir().unwrap();
            let theirs = signed_by_oracle(directory.path(), &test, key);
            let inspection = inspect(&theirs[..], theirs.len() as u64).unwrap();
            let signature = inspection.signature.unwrap();
            let pcr0 = inspection.measurements.pcr0;
            let certificate = Certificate::from_pem(&signature.certificate_pem).unwrap();

            certificate.check_signature(&signature.cose_sign1, &pcr0).unwrap();

            let signer = Signer::new(test.certificate_pem.clone(), key, SystemTime::now()).unwrap();
            let mut ours = signer.sign(&pcr0).unwrap();
            let mut cose = CoseSign1::parse(&ours.cose_sign1).unwrap();
            cose.signature = CoseSign1::parse(&signature.cose_sign1).unwrap().signature;
            ours.cose_sign1 = cose.encode();
            let mut out = Cursor::new(Vec::new());
            let mut builder = Builder::unsigned_copy(&theirs[..], theirs.len() as u64, &mut out).unwrap();
            builder.add_signature(&ours).unwrap();
            builder.finish().unwrap();
            assert!(out.into_inner() == theirs, "{curve:?}");
        }
    }
}

/// The first item of an ECDSA signature as OpenSSL wants it: SEQUENCE of r and s.
fn der_signature(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let integer = |bytes: &[u8]| {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap();
        let mut number = bytes[start..].to_vec();
        if number[0] >= 0x80 {
            number.insert(0, 0);
        }
        [&[2, u8::try_from(number.len()).unwrap()], &number[..]].concat()
    };
    let content = [integer(r), integer(s)].concat();
    let length = u8::try_from(content.len()).unwrap();
    let head = if length < 0x80 {
        vec![0x30, length]
    } else {
        vec![0x30, 0x81, length]
    };
    [head, content].concat()
}

#[test]
#[ignore = "needs openssl; cargo xtask test runs it"]
fn openssl_verifies_our_signatures_and_shows_our_certificates_alike() {
    for (curve, digest) in [
        (Curve::P256, "-sha256"),
        (Curve::P384, "-sha384"),
        (Curve::P521, "-sha512"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let test = TestSigner::valid(curve, "20240102030405Z", "20991231235959Z");
        let signer = Signer::new(test.certificate_pem.clone(), &test.key_pem, SystemTime::now()).unwrap();
        let section = signer.sign(&eif::Pcr::of_data(b"the image")).unwrap();
        let cose = CoseSign1::parse(&section.cose_sign1).unwrap();
        let certificate = file(directory, "certificate", &test.certificate_pem);
        let x509 = |arguments: &[&str]| {
            let mut command = Command::new("openssl");
            command
                .arg("x509")
                .arg("-in")
                .arg(&certificate)
                .arg("-noout")
                .args(arguments);
            String::from_utf8(succeeded(&mut command).stdout).unwrap()
        };

        let public_key = file(directory, "public", x509(&["-pubkey"]).as_bytes());
        let mut verify = Command::new("openssl");
        verify.args(["dgst", digest, "-verify"]).arg(&public_key);
        verify
            .arg("-signature")
            .arg(file(directory, "signature", &der_signature(&cose.signature)))
            .arg(file(directory, "message", &cose.to_be_signed()));
        succeeded(&mut verify);

        let ours = signer.certificate();
        let dates = format!("notBefore={}\nnotAfter={}\n", ours.not_before(), ours.not_after());
        assert_eq!(x509(&["-dates"]), dates);
        let text = x509(&["-text", "-nameopt", "lname,sep_multiline"]);
        assert!(
            text.contains(&format!("Signature Algorithm: {}\n", ours.algorithm())),
            "{text}"
        );
        for (name, value) in ours.issuer() {
            assert!(text.contains(&format!("{name}={value}\n")), "{text}");
        }
    }
}
