//! sign-eif, pcr, signed builds, and what describe-eif says of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use test_signer::{Curve, TestSigner};

use crate::images;
use crate::program::{Finished, Program};

const SIGN: &str = "sign-eif --eif-path a.eif --signing-certificate certificate.pem --private-key key.pem";

/// A directory with an unsigned image, `a.eif`, and a signer, `certificate.pem` and `key.pem`.
fn workplace() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.eif"), images::unsigned(None)).unwrap();
    put_signer(directory.path(), &TestSigner::new(Curve::P384));
    directory
}

fn put_signer(directory: &Path, signer: &TestSigner) {
    fs::write(directory.join("certificate.pem"), &signer.certificate_pem).unwrap();
    fs::write(directory.join("key.pem"), &signer.key_pem).unwrap();
}

fn run(directory: &Path, line: &str) -> Finished {
    Program::new(line.split_whitespace()).directory(directory).run()
}

fn json(directory: &Path, line: &str) -> Value {
    let finished = run(directory, line);
    assert_eq!(finished.code, 0, "{finished:#?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

fn describe(directory: &Path) -> Value {
    json(directory, "describe-eif --eif-path a.eif")
}

/// The names in a directory, so that what a failure leaves behind shows.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_signed_image_is_described_in_the_order_of_aws() {
    let directory = workplace();

    let signed = run(directory.path(), SIGN);

    assert_eq!(
        (signed.code, signed.stderr.as_str()),
        (0, "Enclave Image successfully signed.\n")
    );
    let described = run(directory.path(), "describe-eif --eif-path a.eif").stdout;
    let (head, rest) = described.split_once("\"IsSigned\"").unwrap();
    let pcr8 = json(directory.path(), "pcr --signing-certificate certificate.pem")["PCR8"].clone();
    let pcr8 = pcr8.as_str().unwrap();
    assert!(head.contains(&format!("\"PCR8\": \"{pcr8}\"\n")), "{head}");
    let before = r#": true,
  "SigningCertificate": {
    "IssuerName": {
      "commonName": "signer 7",
      "countryName": "ZZ",
      "organizationName": "Example"
    },
    "Algorithm": "ecdsa-with-SHA384",
    "NotBefore": "Jan  1 00:00:00 2000 GMT",
    "NotAfter": "Jan  1 00:00:00 2100 GMT",
    "Signature": "30:"#;
    let after = r#""
  },
  "CheckCRC": true,
  "SignatureCheck": true,
  "ImageName": "hello","#;
    let (signature, rest) = rest.strip_prefix(before).unwrap().split_once('"').unwrap();
    assert!(
        signature
            .split(':')
            .all(|byte| u8::from_str_radix(byte, 16).is_ok())
    );
    assert!(format!("\"{rest}").starts_with(after), "{rest}");
    let printed: Value = serde_json::from_str(&signed.stdout).unwrap();
    assert_eq!(
        printed["Measurements"],
        describe(directory.path())["Measurements"]
    );
}

#[test]
fn signing_changes_pcr8_alone_and_signing_again_follows_the_new_certificate() {
    let directory = workplace();
    let unsigned = describe(directory.path());
    assert_eq!(unsigned["IsSigned"], false);
    for key in ["SigningCertificate", "SignatureCheck"] {
        assert_eq!(unsigned.get(key), None);
    }
    let mut seen = Vec::new();
    for curve in Curve::ALL {
        put_signer(directory.path(), &TestSigner::new(curve));
        let mut measured = json(directory.path(), SIGN)["Measurements"].clone();
        let described = describe(directory.path());
        assert_eq!(
            (&described["CheckCRC"], &described["SignatureCheck"]),
            (&Value::Bool(true), &Value::Bool(true)),
            "{curve:?}"
        );
        assert_eq!(described["Measurements"], measured);
        let pcr8 = measured.as_object_mut().unwrap().remove("PCR8").unwrap();
        assert_eq!(
            pcr8,
            json(directory.path(), "pcr --signing-certificate certificate.pem")["PCR8"]
        );
        assert_eq!(measured, unsigned["Measurements"]);
        assert!(!seen.contains(&pcr8));
        seen.push(pcr8);
    }
    assert_eq!(names(directory.path()), ["a.eif", "certificate.pem", "key.pem"]);
}

#[test]
fn signing_twice_gives_the_same_bytes_and_keeps_the_files_mode() {
    let directory = workplace();
    let path = directory.path().join("a.eif");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

    json(directory.path(), SIGN);
    let first = fs::read(&path).unwrap();
    json(directory.path(), SIGN);

    assert!(fs::read(&path).unwrap() == first);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_signature_over_another_image_is_told() {
    let directory = workplace();
    let path = directory.path().join("a.eif");
    json(directory.path(), SIGN);
    let signed = fs::read(&path).unwrap();

    fs::write(&path, images::replace(&signed, b"R2", b"r2")).unwrap();

    let described = describe(directory.path());
    assert_eq!(described["CheckCRC"], false);
    assert_eq!(described["IsSigned"], true);
    assert_eq!(described["SignatureCheck"], false);
}

#[test]
fn a_certificate_that_cannot_be_read_is_not_shown_and_its_signature_does_not_hold() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.eif"), images::signed().0).unwrap();

    let described = describe(directory.path());

    assert_eq!(described["IsSigned"], true);
    assert_eq!(described["SignatureCheck"], false);
    assert_eq!(described.get("SigningCertificate"), None);
}

#[test]
fn an_expired_certificate_still_describes_what_it_signed() {
    let directory = workplace();
    json(directory.path(), SIGN);
    let signed = fs::read(directory.path().join("a.eif")).unwrap();
    // As long as the other, and of the same key.
    let expired = TestSigner::valid(Curve::P384, "20000101000000Z", "20010101000000Z");
    put_signer(directory.path(), &expired);

    run(directory.path(), SIGN).assert_failed(60, &["E60"]);

    assert!(fs::read(directory.path().join("a.eif")).unwrap() == signed);
    assert_eq!(describe(directory.path())["SignatureCheck"], true);
}

#[test]
fn what_keeps_sign_eif_from_signing_is_e60_and_leaves_the_image_alone() {
    let directory = workplace();
    let image = fs::read(directory.path().join("a.eif")).unwrap();
    let other = TestSigner::numbered(9, Curve::P384, "20000101000000Z", "21000101000000Z");
    fs::write(directory.path().join("other.pem"), &other.key_pem).unwrap();
    fs::write(directory.path().join("junk"), "junk").unwrap();
    let mut damaged = image.clone();
    damaged[0x220] ^= 1;
    fs::write(directory.path().join("damaged.eif"), &damaged).unwrap();
    let before = names(directory.path());
    let kms = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let cases = [
        (
            "a.eif",
            "missing.pem",
            "key.pem",
            "signing certificate `missing.pem`",
        ),
        ("a.eif", "junk", "key.pem", "signing certificate `junk`: "),
        ("a.eif", ".", "key.pem", "not a regular file"),
        (
            "a.eif",
            "certificate.pem",
            "missing.pem",
            "private key `missing.pem`",
        ),
        ("a.eif", "certificate.pem", "junk", "private key `junk`: "),
        (
            "a.eif",
            "certificate.pem",
            "other.pem",
            "does not belong to the certificate",
        ),
        ("a.eif", "certificate.pem", kms, "Key Management Service"),
        ("missing.eif", "certificate.pem", "key.pem", "`missing.eif`"),
        ("junk", "certificate.pem", "key.pem", "not an EIF"),
        (".", "certificate.pem", "key.pem", "not a regular file"),
        ("damaged.eif", "certificate.pem", "key.pem", "damaged"),
    ];
    for (eif, certificate, key, said) in cases {
        let line =
            format!("sign-eif --eif-path {eif} --signing-certificate {certificate} --private-key {key}");

        let finished = run(directory.path(), &line);

        finished.assert_failed(60, &["E60"]);
        finished.assert_says(&[said]);
    }
    run(directory.path(), "sign-eif --eif-path a.eif").assert_failed(60, &["E60"]);
    assert!(fs::read(directory.path().join("a.eif")).unwrap() == image);
    assert_eq!(names(directory.path()), before);
}

#[test]
fn sign_eif_without_an_image_is_e01() {
    let directory = workplace();

    for line in [
        "sign-eif",
        "sign-eif --signing-certificate certificate.pem --private-key key.pem",
    ] {
        run(directory.path(), line).assert_failed(1, &["E01"]);
    }
}

#[test]
fn an_image_is_signed_as_it_is_built() {
    let directory = workplace();
    let blobs = directory.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    for (name, contents) in [
        ("bzImage", "kernel"),
        (
            "bzImage.config",
            "#\n#\n# Linux/x86_64 6.12.0 Kernel Configuration\n",
        ),
        ("cmdline", "console=ttyS0\n"),
        ("init", "init"),
    ] {
        fs::write(blobs.join(name), contents).unwrap();
    }
    fs::create_dir(directory.path().join("hello")).unwrap();
    fs::write(directory.path().join("hello/init"), "#!/bin/sh\n").unwrap();
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(directory.path().join("hello/init"), executable).unwrap();
    let build = |more: &str| {
        let line = format!("build-enclave --docker-uri hello --output-file built.eif {more}");
        Program::new(line.split_whitespace())
            .directory(directory.path())
            .env("NITRO_CLI_BLOBS", &blobs)
            .run()
    };

    let refused = build("--signing-certificate certificate.pem --private-key missing.pem");
    refused.assert_failed(48, &["E48"]);
    assert!(!directory.path().join("built.eif").exists());

    let unsigned = build("");
    assert_eq!(unsigned.code, 0, "{unsigned:#?}");
    let added = json(
        directory.path(),
        "sign-eif --eif-path built.eif --signing-certificate certificate.pem --private-key key.pem",
    );
    let signed_later = fs::read(directory.path().join("built.eif")).unwrap();

    let signed = build("--signing-certificate certificate.pem --private-key key.pem");

    assert_eq!(signed.code, 0, "{signed:#?}");
    let printed: Value = serde_json::from_str(&signed.stdout).unwrap();
    assert_eq!(printed, added);
    assert!(printed["Measurements"]["PCR8"].is_string());
    assert!(fs::read(directory.path().join("built.eif")).unwrap() == signed_later);
    assert_eq!(
        json(directory.path(), "describe-eif --eif-path built.eif")["SignatureCheck"],
        true
    );
}

#[test]
fn pcr_measures_files_and_certificates() {
    let directory = workplace();
    fs::write(directory.path().join("empty"), "").unwrap();

    let finished = run(directory.path(), "pcr --input empty");

    // The known measurement of nothing.
    assert_eq!(
        finished.stdout,
        "{\n  \"PCR\": \"21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c\
         10edb30948c90ba67310f7b964fc500a\"\n}\n"
    );
    let pcr8 = eif::Pcr::of_data(&TestSigner::new(Curve::P384).certificate_der);
    assert_eq!(
        json(directory.path(), "pcr --signing-certificate certificate.pem"),
        serde_json::json!({ "PCR8": pcr8.to_string() })
    );
    run(directory.path(), "pcr --signing-certificate key.pem").assert_failed(57, &["E57"]);
    for missing in ["--input", "--signing-certificate"] {
        let line = format!("pcr {missing} missing");
        run(directory.path(), &line).assert_failed(19, &["E19"]);
        let line = format!("pcr {missing} .");
        run(directory.path(), &line).assert_failed(19, &["E19"]);
    }
}

#[test]
fn a_key_that_is_elsewhere_signs_as_well() {
    for (curve, hash) in [
        (Curve::P256, "-sha256"),
        (Curve::P384, "-sha384"),
        (Curve::P521, "-sha512"),
    ] {
        let directory = workplace();
        let directory = directory.path();
        put_signer(directory, &TestSigner::new(curve));
        let before = fs::read(directory.join("a.eif")).unwrap();
        let certificate = "sign-eif --eif-path a.eif --signing-certificate certificate.pem";

        let written = run(directory, &format!("{certificate} --to-be-signed a.tbs"));

        assert_eq!(written.code, 0, "{written:#?}");
        written.assert_says(&["`a.tbs`", "`--signature`"]);
        assert!(
            fs::read(directory.join("a.eif")).unwrap() == before,
            "the image is as it was"
        );
        let signed = Command::new("openssl")
            .args(["dgst", hash, "-sign", "key.pem", "-out", "a.sig", "a.tbs"])
            .current_dir(directory)
            .status()
            .unwrap();
        assert!(signed.success());

        let attached = json(directory, &format!("{certificate} --signature a.sig"));
        assert_eq!(attached, serde_json::from_str::<Value>(&written.stdout).unwrap());
        let described = describe(directory);
        assert_eq!(described["SignatureCheck"], true);
        assert_eq!(described["Measurements"], attached["Measurements"]);
        assert_eq!(
            described["Measurements"],
            json(directory, SIGN)["Measurements"],
            "as with the key here"
        );
    }
}

#[test]
fn a_signature_of_another_key_or_image_is_not_attached() {
    let directory = workplace();
    let directory = directory.path();
    let certificate = "sign-eif --eif-path a.eif --signing-certificate certificate.pem";
    run(directory, &format!("{certificate} --to-be-signed a.tbs"));
    let sign = |key: &str| {
        let arguments = ["dgst", "-sha384", "-sign", key, "-out", "a.sig", "a.tbs"];
        let signed = Command::new("openssl")
            .args(arguments)
            .current_dir(directory)
            .status()
            .unwrap();
        assert!(signed.success());
    };
    fs::write(
        directory.join("other.pem"),
        TestSigner::numbered(9, Curve::P384, "200101000000Z", "491231235959Z").key_pem,
    )
    .unwrap();
    let before = fs::read(directory.join("a.eif")).unwrap();
    let refused = || {
        let finished = run(directory, &format!("{certificate} --signature a.sig"));
        finished.assert_failed(60, &["E60"]);
        finished.assert_says(&["Cannot sign the EIF `a.eif`", "by the certificate's key"]);
        assert!(fs::read(directory.join("a.eif")).unwrap() == before);
    };

    sign("other.pem");
    refused();
    fs::write(directory.join("a.sig"), "").unwrap();
    refused();
    fs::write(directory.join("a.tbs"), "something else").unwrap();
    sign("key.pem");
    refused();
    run(directory, &format!("{certificate} --to-be-signed ./a.eif")).assert_failed(60, &["E60"]);
    assert!(fs::read(directory.join("a.eif")).unwrap() == before);
    run(directory, &format!("{certificate} --signature missing")).assert_failed(60, &["E60"]);
    let damaged = images::replace(&before, b"R1", b"R3");
    fs::write(directory.join("a.eif"), damaged).unwrap();
    run(directory, &format!("{certificate} --to-be-signed b.tbs")).assert_failed(60, &["E60"]);
    assert!(!directory.join("b.tbs").exists());
}
