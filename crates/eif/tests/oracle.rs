//! Files made by `eif_build`, the tool around AWS's own implementation of the format, against what is read here.
//!
//! The tool is found through `EIF_BUILD_ORACLE` or on `PATH`; `cargo install eif_build --version 0.2.1 --locked` makes it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something unexpected happens"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use eif::{Arch, Builder, Inspection, Metadata, SectionKind, inspect};
use serde_json::{Value, json};

/// What goes into an image, as files in a directory of its own.
struct Source {
    directory: tempfile::TempDir,
    kernel: Vec<u8>,
    cmdline: &'static str,
    ramdisks: Vec<Vec<u8>>,
}

/// Bytes that are the same on every run and differ with `seed`.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn source(kernel: usize, cmdline: &'static str, ramdisks: &[usize]) -> Source {
    let source = Source {
        directory: tempfile::tempdir().unwrap(),
        kernel: bytes(kernel, 1),
        cmdline,
        ramdisks: (2..)
            .zip(ramdisks)
            .map(|(seed, length)| bytes(*length, seed))
            .collect(),
    };
    fs::write(source.path("kernel"), &source.kernel).unwrap();
    for (index, ramdisk) in source.ramdisks.iter().enumerate() {
        fs::write(source.path(&format!("ramdisk{index}")), ramdisk).unwrap();
    }
    source
}

impl Source {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has the tool build an image; returns it and the measurements that the tool printed.
    fn built_by_oracle(&self, more: &[&str]) -> (Vec<u8>, Value) {
        let image = self.path("image.eif");
        let oracle = std::env::var_os("EIF_BUILD_ORACLE").unwrap_or_else(|| "eif_build".into());
        let mut command = Command::new(oracle);
        command.args([
            "--cmdline",
            self.cmdline,
            "--build-time",
            "2024-01-01T00:00:00+00:00",
            "--name",
            "oracle",
        ]);
        command
            .arg("--kernel")
            .arg(self.path("kernel"))
            .arg("--output")
            .arg(&image)
            .args(more);
        for index in 0..self.ramdisks.len() {
            command
                .arg("--ramdisk")
                .arg(self.path(&format!("ramdisk{index}")));
        }
        let output = succeeded(&mut command);
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, measurements) = text.split_once('\n').unwrap();
        (
            fs::read(image).unwrap(),
            serde_json::from_str(measurements).unwrap(),
        )
    }

    fn built_here(&self, arch: Arch, metadata: &Metadata) -> Vec<u8> {
        let path = self.path("ours.eif");
        let file = fs::File::create(&path).unwrap();
        let mut kernel = fs::File::open(self.path("kernel")).unwrap();
        let mut builder = Builder::new(file, arch, &mut kernel, self.cmdline.as_bytes(), metadata).unwrap();
        for ramdisk in &self.ramdisks {
            builder.add_ramdisk(&mut &ramdisk[..]).unwrap();
        }
        builder.finish().unwrap();
        fs::read(path).unwrap()
    }

    /// A P-384 key and a certificate for it, as `key.pem` and `certificate.pem`.
    fn make_signer(&self) -> (PathBuf, PathBuf) {
        let (key, certificate) = (self.path("key.pem"), self.path("certificate.pem"));
        succeeded(
            Command::new("openssl")
                .args([
                    "req",
                    "-new",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-384",
                    "-nodes",
                ])
                .args(["-sha384", "-days", "2", "-subj", "/C=US/CN=signer", "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&certificate),
        );
        (key, certificate)
    }
}

fn succeeded(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The measurements in the form in which the tool prints them.
fn printed(inspection: &Inspection) -> Value {
    let measurements = &inspection.measurements;
    let mut value = json!({
        "HashAlgorithm": "Sha384 { ... }",
        "PCR0": measurements.pcr0.to_string(),
        "PCR1": measurements.pcr1.to_string(),
        "PCR2": measurements.pcr2.to_string(),
    });
    if let Some(pcr8) = inspection.pcr8 {
        value["PCR8"] = json!(pcr8.to_string());
    }
    value
}

/// Inspects an image of the tool and checks all that does not depend on how it was made.
fn checked(image: &[u8], source: &Source, measurements: &Value) -> Inspection {
    let inspection = inspect(image, image.len() as u64).unwrap();
    let layout = &inspection.layout;
    let content = |section: &eif::Section| {
        image[usize::try_from(section.offset).unwrap()..usize::try_from(section.end()).unwrap()].to_vec()
    };
    assert!(inspection.crc_ok);
    assert_eq!(&printed(&inspection), measurements);
    assert_eq!(layout.header.version, 4);
    assert_eq!(layout.trailing_bytes(), 0);
    assert_eq!(content(layout.kernel()), source.kernel);
    assert_eq!(content(layout.cmdline()), source.cmdline.as_bytes());
    assert_eq!(
        layout.ramdisks().map(content).collect::<Vec<_>>(),
        source.ramdisks
    );
    inspection
}

#[test]
#[ignore = "needs eif_build; cargo xtask test installs it"]
fn unsigned_images_of_every_shape_are_read_and_built_byte_for_byte_alike() {
    let shapes: [(usize, &'static str, &[usize]); 5] = [
        (1, "c", &[1]),
        (4096, "reboot=k panic=30 pci=off", &[100, 3_000_000]),
        (2_000_001, "console=ttyS0", &[131_072, 131_073, 1]),
        (0, "empty kernel", &[0, 0]),
        (128, "many", &[5; 29]),
    ];
    for (kernel, cmdline, ramdisks) in shapes {
        let source = source(kernel, cmdline, ramdisks);
        let (image, measurements) = source.built_by_oracle(&[]);

        let inspection = checked(&image, &source, &measurements);

        assert_eq!((&inspection.signature, inspection.pcr8), (&None, None));
        let metadata = inspection.metadata.unwrap();
        assert_eq!(metadata.image_name, "oracle");
        assert_eq!(metadata.build_metadata.build_tool, "eif_build");
        assert_eq!(metadata.docker_info, None);
        assert!(
            source.built_here(Arch::X86_64, &metadata) == image,
            "{cmdline}: the files differ"
        );
    }
}

#[test]
#[ignore = "needs eif_build; cargo xtask test installs it"]
fn an_arm_image_with_custom_metadata_is_read_and_built_byte_for_byte_alike() {
    let source = source(64, "root=/dev/ram0", &[10, 20]);
    let custom = json!({"team": "blue", "list": [1, 2.5, null, {"é": "\n"}], "A": {"b": true, "a": false}});
    fs::write(source.path("custom.json"), custom.to_string()).unwrap();
    let (image, measurements) = source.built_by_oracle(&[
        "--arch",
        "aarch64",
        "--metadata",
        text(&source.path("custom.json")),
    ]);

    let inspection = checked(&image, &source, &measurements);

    assert_eq!(inspection.layout.header.arch, Arch::Aarch64);
    let metadata = inspection.metadata.unwrap();
    assert_eq!(metadata.custom_metadata.as_ref(), Some(&custom));
    assert!(
        source.built_here(Arch::Aarch64, &metadata) == image,
        "the files differ"
    );
}

#[test]
#[ignore = "needs eif_build; cargo xtask test installs it"]
fn signed_images_have_the_certificate_and_the_pcr8_of_the_oracle() {
    for ramdisks in [&[7][..], &[7, 1000], &[7, 1000, 3]] {
        let source = source(5000, "signed", ramdisks);
        let (key, certificate) = source.make_signer();
        let (image, measurements) = source.built_by_oracle(&[
            "--signing-certificate",
            text(&certificate),
            "--private-key",
            text(&key),
        ]);

        let inspection = checked(&image, &source, &measurements);

        assert!(measurements["PCR8"].is_string(), "{measurements}");
        assert_eq!(
            inspection.layout.sections.last().unwrap().kind,
            SectionKind::Signature
        );
        let signature = inspection.signature.unwrap();
        assert_eq!(signature.certificate_pem, fs::read(&certificate).unwrap());
        // An untagged COSE_Sign1: an array of four, first the protected header {1: -35}, that is ES384.
        assert_eq!(signature.cose_sign1[..6], [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22]);
    }
}
