//! Inputs that are refused or warned of, and that nothing stays behind.

use std::fs;
use std::process::Command;

use image::{BuildOptions, ImageError, Source, Warning};
use serde_json::{Value, json};

use crate::bench::{Bench, sample, write_root};
use crate::images::{Files, Image, archive, digest, gzip, index, write_directory};
use crate::tar_writer::{Extra, TarWriter};

#[test]
fn something_must_be_run() {
    let bench = Bench::new();
    let mut image = sample();
    image.config["config"] = json!({"Entrypoint": null, "Cmd": []});
    write_directory(&image.layout(), &bench.path("layout"));
    fs::create_dir(bench.path("empty")).unwrap();
    fs::create_dir(bench.path("directory")).unwrap();
    fs::create_dir(bench.path("directory/init")).unwrap();
    for source in ["layout", "empty", "directory"] {
        assert!(
            matches!(bench.error(source), ImageError::NoCommand(_)),
            "{source}"
        );
    }
    image.config.as_object_mut().unwrap().remove("config");
    write_directory(&image.layout(), &bench.path("no-config"));
    assert!(matches!(bench.error("no-config"), ImageError::NoCommand(_)));

    image.config["config"] = json!({"Cmd": ["/only-cmd"]});
    write_directory(&image.layout(), &bench.path("cmd"));
    assert_eq!(
        bench.build("cmd").unwrap().report.execution.command,
        ["/only-cmd"]
    );
}

#[test]
fn values_of_several_lines_are_refused() {
    let bench = Bench::new();
    let cases = [
        ("Cmd", json!(["a", "b\nc"])),
        ("Env", json!(["A=1\n2"])),
        ("User", json!("a\0b")),
        ("WorkingDir", json!("/\n")),
    ];
    for (key, value) in cases {
        let mut image = sample();
        image.config["config"][key] = value;
        write_directory(&image.layout(), &bench.path(key));
        assert!(matches!(bench.error(key), ImageError::NotOneLine { .. }), "{key}");
    }
}

/// Replaces the contents of the file whose name contains `name`.
fn damage(files: &Files, name: &str, change: impl Fn(&mut Vec<u8>)) -> Files {
    let mut files = files.clone();
    let (_, contents) = files.iter_mut().find(|(other, _)| other.contains(name)).unwrap();
    change(contents);
    files
}

#[test]
fn damaged_images_are_named() {
    let bench = Bench::new();
    let image = sample();
    let files = image.layout();
    let blob = |bytes: &[u8]| digest(bytes).trim_start_matches("sha256:").to_owned();
    let (config, layer) = (blob(&image.config_bytes()), blob(&gzip(&image.layers[1])));

    write_directory(
        &damage(&files, &config, |bytes| bytes[3] ^= 1),
        &bench.path("config"),
    );
    assert!(matches!(bench.error("config"), ImageError::Digest { .. }));
    write_directory(
        &damage(&files, &layer, |bytes| bytes[20] ^= 1),
        &bench.path("layer"),
    );
    let error = bench.error("layer");
    assert!(
        matches!(
            error,
            ImageError::Layer {
                number: 2,
                count: 2,
                source: image::LayerError::Digest { .. }
            }
        ),
        "{error:?}"
    );
    write_directory(
        &damage(&files, &layer, |bytes| bytes.truncate(9)),
        &bench.path("short"),
    );
    assert!(matches!(bench.error("short"), ImageError::Size { actual: 9, .. }));
    write_directory(
        &damage(&files, "index.json", |bytes| bytes.truncate(9)),
        &bench.path("index"),
    );
    assert!(matches!(bench.error("index"), ImageError::Json { .. }));
    write_directory(
        &damage(&files, "index.json", |bytes| bytes.resize(5 << 20, b' ')),
        &bench.path("huge"),
    );
    assert!(matches!(bench.error("huge"), ImageError::DocumentTooLarge(_)));
    let missing: Files = files
        .iter()
        .filter(|(name, _)| !name.contains(&layer))
        .cloned()
        .collect();
    write_directory(&missing, &bench.path("missing"));
    assert!(matches!(bench.error("missing"), ImageError::Missing(_)));

    let docker = image.docker_save();
    bench.file(
        "layer.tar",
        &archive(&damage(&docker, "1/layer.tar", |bytes| bytes[600] ^= 1)),
    );
    assert!(matches!(
        bench.error("layer.tar"),
        ImageError::Layer { number: 2, .. }
    ));
    bench.file(
        "config.tar",
        &archive(&damage(&docker, &config, |bytes| bytes[3] ^= 1)),
    );
    assert!(matches!(bench.error("config.tar"), ImageError::Digest { .. }));
    let whole = archive(&docker);
    bench.file("cut.tar", &whole[..whole.len() - 1500]);
    assert!(matches!(bench.error("cut.tar"), ImageError::Archive { .. }));
    bench.file("cut.tar.gz", &gzip(&whole)[..200]);
    assert!(matches!(bench.error("cut.tar.gz"), ImageError::Unpack { .. }));
    let escaping = serde_json::to_vec(&json!([{"Config": "../../etc/passwd", "Layers": []}])).unwrap();
    bench.file(
        "escaping.tar",
        &archive(&vec![("manifest.json".into(), escaping)]),
    );
    assert!(matches!(bench.error("escaping.tar"), ImageError::Missing(_)));
}

#[test]
fn manifests_that_disagree_or_are_of_another_kind_are_refused() {
    let bench = Bench::new();
    let image = sample();
    let rebuilt = |change: &dyn Fn(&mut Value)| {
        let (mut files, descriptor) = image.blobs();
        let (_, manifest) = files.pop().unwrap();
        let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
        change(&mut manifest);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let descriptor = json!({
            "mediaType": descriptor["mediaType"], "digest": digest(&bytes), "size": bytes.len()
        });
        files.push((format!("blobs/{}", digest(&bytes).replace(':', "/")), bytes));
        files.push(("oci-layout".into(), b"{}".to_vec()));
        files.push(index(&[descriptor]));
        files
    };
    write_directory(&rebuilt(&|_| {}), &bench.path("unchanged"));
    bench.build("unchanged").unwrap();
    fs::remove_file(bench.path("out/image.eif")).unwrap();

    write_directory(
        &rebuilt(&|manifest| drop(manifest["layers"].as_array_mut().unwrap().pop())),
        &bench.path("count"),
    );
    assert!(matches!(
        bench.error("count"),
        ImageError::LayerCount {
            layers: 1,
            diff_ids: 2
        }
    ));
    let artifact = rebuilt(&|manifest| {
        manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    });
    write_directory(&artifact, &bench.path("helm"));
    assert!(matches!(bench.error("helm"), ImageError::MediaType(_)));
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    write_directory(
        &rebuilt(&|manifest| manifest["layers"][0]["mediaType"] = json!(encrypted)),
        &bench.path("encrypted"),
    );
    assert!(matches!(bench.error("encrypted"), ImageError::MediaType(_)));
    write_directory(
        &rebuilt(&|manifest| manifest["layers"][0]["digest"] = json!("md5:abc")),
        &bench.path("md5"),
    );
    assert!(matches!(bench.error("md5"), ImageError::UnknownDigest(_)));
}

#[test]
fn what_is_no_image_is_named() {
    let bench = Bench::new();
    bench.file("text", b"not an image");
    bench.file("empty.tar", &TarWriter::new().finish());
    bench.file("other.tar", &TarWriter::new().file("README", "x").finish());
    bench.file("zero", b"");
    for source in ["text", "empty.tar", "other.tar", "zero"] {
        assert!(
            matches!(bench.error(source), ImageError::NotAnImage(_)),
            "{source}"
        );
    }
    for missing in ["missing", "missing:tag", "text-and-more"] {
        assert!(matches!(
            Source::detect(bench.path(missing)),
            Err(ImageError::NotFound(_))
        ));
    }
    let fifo = bench.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert!(
        matches!(bench.error("fifo"), ImageError::Read { .. }),
        "not waited for"
    );
}

#[test]
fn what_a_ramdisk_cannot_carry_is_named() {
    let bench = Bench::new();
    write_root(&bench.path("root"));
    fs::File::create(bench.path("root/huge"))
        .unwrap()
        .set_len(1 << 32)
        .unwrap();
    let error = bench.error("root");
    let ImageError::Ramdisk(image::cpio::Error::FileTooLarge { name, size }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((name.as_str(), *size), ("rootfs/huge", 1 << 32));
    fs::remove_file(bench.path("root/huge")).unwrap();

    let too_long = TarWriter::new().file("x".repeat(256), "").finish();
    write_directory(&Image::new(vec![too_long]).layout(), &bench.path("long"));
    assert!(matches!(
        bench.error("long"),
        ImageError::Ramdisk(image::cpio::Error::NameTooLong(_))
    ));

    let xattrs = Extra {
        pax: &[("SCHILY.xattr.user.note", b"x"), ("SCHILY.xattr.", b"nameless")],
        ..Extra::mode(0o755)
    };
    let layer = TarWriter::new()
        .entry("bin/ping", b'0', b"", b"", xattrs)
        .finish();
    write_directory(&Image::new(vec![layer]).layout(), &bench.path("xattrs"));
    let lost = Warning::LostAttributes {
        path: "/bin/ping".into(),
        attributes: vec![String::new()],
    };
    assert_eq!(bench.build("xattrs").unwrap().report.warnings, [lost]);
}

#[test]
fn bombs_are_stopped_before_anything_is_written() {
    let bench = Bench::new();
    let sparse: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.realsize", b"4294967295"),
    ];
    let layer = (0..20).fold(TarWriter::new(), |tar, index| {
        let map = {
            let mut map = b"0\n".to_vec();
            map.resize(512, 0);
            map
        };
        tar.entry(
            format!("sparse-{index}"),
            b'0',
            b"",
            &map,
            Extra {
                pax: sparse,
                ..Extra::mode(0o644)
            },
        )
    });
    write_directory(&Image::new(vec![layer.finish()]).layout(), &bench.path("sparse"));
    assert!(matches!(bench.error("sparse"), ImageError::TooLarge { .. }));

    write_directory(&sample().layout(), &bench.path("layout"));
    let mut options = BuildOptions::default();
    options.limits.unpacked = 1000;
    let error = bench.build_with("layout", &options).map(|_| ()).unwrap_err();
    assert!(matches!(
        error,
        ImageError::Layer {
            source: image::LayerError::TooLarge(1000),
            ..
        }
    ));
    options.limits = image::Limits {
        metadata: 500,
        ..image::Limits::default()
    };
    assert!(bench.build_with("layout", &options).is_err());
}

#[test]
fn a_failed_build_leaves_the_old_output() {
    let bench = Bench::new();
    write_directory(&sample().layout(), &bench.path("layout"));
    let before = bench.build("layout").unwrap().eif;
    bench.file("text", b"not an image");
    assert!(bench.build("text").is_err());
    assert!(fs::read(bench.path("out/image.eif")).unwrap() == before);
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 1);
}
