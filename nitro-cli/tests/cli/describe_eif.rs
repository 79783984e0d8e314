//! describe-eif of images made here, whose measurements are known.

use std::fs;

use serde_json::{Value, json};

use crate::images;
use crate::program::{Finished, Program};

const PCRS: &str = r#""HashAlgorithm": "Sha384 { ... }",
    "PCR0": "89427b25b8c6dc97577cb4257cb4bfab42a869f0f9ba8fe683690f616715797ead72673c1918835d1615216fb5c8769e",
    "PCR1": "5cfb73228c84599832f72e7c7df5191467530cec6c016cea4c9cd0b20141b4b47a476341036a7373ea241aa9d4156a41",
    "PCR2": "e52b3d6d3661ed6edeafaa4d330cfb9fb9f237304191a23edca8a97fb126043594cb522cb845379441668c8cc1c8adc5""#;

fn describe(image: &[u8]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.eif"), image).unwrap();
    Program::new(["describe-eif", "--eif-path", "a.eif"])
        .directory(directory.path())
        .run()
}

fn described(image: &[u8]) -> Value {
    let finished = describe(image);
    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (0, ""),
        "{finished:#?}"
    );
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn an_unsigned_image_is_described_in_the_order_of_aws() {
    let custom = json!({"Zebra": [1], "Alpha": {"b": null}});

    let finished = describe(&images::unsigned(Some(custom)));

    assert_eq!(
        (finished.code, finished.stderr.as_str()),
        (0, ""),
        "{finished:#?}"
    );
    let expected = format!(
        r#"{{
  "EifVersion": 4,
  "Measurements": {{
    {PCRS}
  }},
  "IsSigned": false,
  "CheckCRC": true,
  "ImageName": "hello",
  "ImageVersion": "1.0",
  "Metadata": {{
    "BuildTime": "2024-01-01T00:00:00+00:00",
    "BuildTool": "nitro-cli",
    "BuildToolVersion": "1.5.0",
    "OperatingSystem": "Linux",
    "KernelVersion": "6.12.0",
    "DockerInfo": null,
    "Alpha": {{
      "b": null
    }},
    "Zebra": [
      1
    ]
  }}
}}
"#
    );
    assert_eq!(finished.stdout, expected);
}

#[test]
fn a_signed_image_shows_that_it_is_and_its_pcr8() {
    let (image, pcr8) = images::signed();

    let described = described(&image);

    assert_eq!(described["IsSigned"], true);
    assert_eq!(described["Measurements"]["PCR8"], pcr8.to_string());
    assert_eq!(described["CheckCRC"], true);
}

#[test]
fn an_image_of_version_2_has_no_metadata_to_show() {
    let described = described(&images::version_2());

    assert_eq!(described["EifVersion"], 2);
    assert_eq!(described["CheckCRC"], true);
    for key in ["ImageName", "ImageVersion", "Metadata"] {
        assert_eq!(described.get(key), None);
    }
}

#[test]
fn a_wrong_crc_is_told_and_bytes_after_the_image_do_not_matter() {
    let image = images::unsigned(None);
    let mut flipped = image.clone();
    flipped[0x220] ^= 1;
    let trailing = [&image[..], b"xx"].concat();

    assert_eq!(described(&flipped)["CheckCRC"], false);
    assert_eq!(described(&trailing), described(&image));
}

#[test]
fn metadata_of_the_user_cannot_pass_for_the_builders() {
    let custom = json!({"BuildTime": "never", "DockerInfo": "forged", "Team": "a"});

    let finished = describe(&images::unsigned(Some(custom)));

    assert_eq!(finished.stdout.matches("\"BuildTime\"").count(), 1);
    assert_eq!(finished.stdout.matches("\"DockerInfo\"").count(), 1);
    let described: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(described["Metadata"]["BuildTime"], "2024-01-01T00:00:00+00:00");
    assert_eq!(described["Metadata"]["Team"], "a");
}

#[test]
fn metadata_without_keys_of_its_own_is_e17() {
    for custom in [json!(["a"]), json!("a"), json!(1)] {
        describe(&images::unsigned(Some(custom))).assert_failed(17, &["E17"]);
    }
}

#[test]
fn what_is_no_image_is_e35() {
    let image = images::unsigned(None);
    let cases: [(&[u8], &str); 4] = [
        (b"", "the file has 0 bytes"),
        (&[b'j'; 1000], "begins with"),
        (&image[..image.len() - 1], "cut off"),
        (&image[..600], "cut off"),
    ];
    for (bytes, reason) in cases {
        let finished = describe(bytes);

        finished.assert_failed(35, &["E35"]);
        finished.assert_says(&[
            "[ E35 ] EIF file parsing failure. Cannot read the EIF `a.eif`: ",
            reason,
        ]);
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_e35_too() {
    let directory = tempfile::tempdir().unwrap();
    for (path, reason) in [
        ("missing.eif", "No such file or directory"),
        (".", "not a regular file"),
    ] {
        let finished = Program::new(["describe-eif", "--eif-path", path])
            .directory(directory.path())
            .run();

        finished.assert_failed(35, &["E35"]);
        finished.assert_says(&["Cannot open the EIF `", path, "`: ", reason]);
    }
}
