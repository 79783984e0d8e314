//! Images in all their forms, and which one of several is meant.

use image::ImageError;
use serde_json::{Value, json};

use crate::bench::{Bench, sample};
use crate::images::{Compression, Files, Image, archive, digest, gzip, index, layout, write_directory};
use crate::tar_writer::TarWriter;

#[test]
fn every_form_of_an_image_gives_the_same_bytes() {
    let bench = Bench::new();
    let image = sample();
    let mut modern = image.layout();
    let with_gzip = image.docker_save();
    modern.push(with_gzip.last().unwrap().clone());
    let mut linked = TarWriter::new();
    for (name, contents) in image.docker_save() {
        if name.ends_with("/layer.tar") {
            linked = linked
                .file(format!("real/{name}"), contents)
                .symlink(&name, format!("../real/{name}"));
        } else {
            linked = linked.file(format!("./{name}"), contents);
        }
    }

    write_directory(&image.layout(), &bench.path("gzip"));
    for (name, compression) in [("none", Compression::None), ("zstd", Compression::Zstd)] {
        let image = Image {
            compression,
            ..image.clone()
        };
        write_directory(&image.layout(), &bench.path(name));
    }
    write_directory(&image.docker_save(), &bench.path("docker"));
    let mut unmarked = image.layout();
    unmarked.retain(|(name, _)| name != "oci-layout");
    write_directory(&unmarked, &bench.path("unmarked"));
    bench.file("oci.tar", &archive(&image.layout()));
    bench.file("oci.tar.gz", &gzip(&archive(&image.layout())));
    bench.file(
        "oci.tar.zst",
        &zstd::encode_all(&archive(&image.layout())[..], 1).unwrap(),
    );
    bench.file("docker.tar", &archive(&image.docker_save()));
    bench.file("docker.tar.gz", &gzip(&archive(&image.docker_save())));
    bench.file("modern.tar", &archive(&modern));
    bench.file("linked.tar", &linked.finish());

    let reference = bench.build("gzip").unwrap().eif;
    let others = [
        "none",
        "zstd",
        "docker",
        "unmarked",
        "oci.tar",
        "oci.tar.gz",
        "oci.tar.zst",
        "docker.tar",
        "docker.tar.gz",
        "modern.tar",
        "linked.tar",
    ];
    for source in others {
        assert!(
            bench.build(source).unwrap().eif == reference,
            "{source} gives other bytes"
        );
    }
}

#[test]
fn one_of_several_images_is_chosen_by_name() {
    let bench = Bench::new();
    let (one, mut two) = (sample(), sample());
    two.tag = "other:v2".to_owned();
    two.config["config"]["User"] = json!("two");
    write_directory(&layout(&[&one, &two]), &bench.path("layout"));
    let ambiguous = bench.error("layout");
    assert!(
        ambiguous
            .to_string()
            .ends_with("one of: docker.io/library/hello:v1, docker.io/library/other:v2, v1, v2"),
        "{ambiguous}"
    );
    assert!(matches!(
        bench.error("layout:v3"),
        ImageError::NoSuchReference { .. }
    ));
    let digest = two.blobs().1["digest"].as_str().unwrap().to_owned();
    for reference in [
        "v2",
        "other:v2",
        "library/other:v2",
        "docker.io/library/other:v2",
        &digest,
    ] {
        let built = bench.build(&format!("layout:{reference}")).unwrap();
        assert_eq!(built.report.execution.user, "two", "{reference}");
    }

    let (first, second) = (one.docker_save(), two.docker_save());
    let items = |files: &Files| -> Vec<Value> { serde_json::from_slice(&files.last().unwrap().1).unwrap() };
    let mut files: Files = first[..first.len() - 1].to_vec();
    files.extend(second[..second.len() - 1].iter().cloned());
    let both = [items(&first), items(&second)].concat();
    files.push(("manifest.json".into(), serde_json::to_vec(&both).unwrap()));
    bench.file("docker.tar", &archive(&files));
    assert!(matches!(bench.error("docker.tar"), ImageError::Ambiguous { .. }));
    assert_eq!(
        bench.build("docker.tar:other:v2").unwrap().report.execution.user,
        "two"
    );
}

#[test]
fn the_platform_of_enclaves_is_chosen_from_an_index() {
    let bench = Bench::new();
    let ours = sample();
    let mut arm = sample();
    arm.config["architecture"] = json!("arm64");
    let (mut files, mut descriptor) = ours.blobs();
    let (arm_files, mut arm_descriptor) = arm.blobs();
    files.extend(arm_files);
    descriptor["platform"] = json!({"os": "linux", "architecture": "amd64"});
    arm_descriptor["platform"] = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
    let mut attestation = descriptor.clone();
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let nested = |manifests: &[Value], files: &Files| {
        let (_, bytes) = index(manifests);
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest(&bytes),
            "size": bytes.len(),
        });
        let mut files = files.clone();
        files.push((format!("blobs/{}", digest(&bytes).replace(':', "/")), bytes));
        files.push(("oci-layout".into(), b"{}".to_vec()));
        files.push(index(&[descriptor]));
        files
    };
    write_directory(
        &nested(&[arm_descriptor.clone(), attestation, descriptor], &files),
        &bench.path("both"),
    );
    write_directory(&nested(&[arm_descriptor], &files), &bench.path("arm"));
    bench.build("both").unwrap();
    let error = bench.error("arm");
    assert!(
        matches!(&error, ImageError::Platform(platform) if platform == "linux/arm64"),
        "{error:?}"
    );
    write_directory(&arm.layout(), &bench.path("unmarked"));
    assert!(matches!(bench.error("unmarked"), ImageError::Platform(_)));
    bench.file("arm.tar", &archive(&arm.docker_save()));
    assert!(matches!(bench.error("arm.tar"), ImageError::Platform(_)));
}
