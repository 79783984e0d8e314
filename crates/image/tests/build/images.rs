//! Container images for tests, in every form they come in.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::tar_writer::TarWriter;

/// How the blobs of layers are compressed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// An image: a configuration without layers, and the layers' archives.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) config: Value,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) compression: Compression,
    pub(crate) tag: String,
}

/// Files of a layout or archive, in order.
pub(crate) type Files = Vec<(String, Vec<u8>)>;

impl Image {
    pub(crate) fn new(layers: Vec<Vec<u8>>) -> Self {
        let config = json!({
            "created": "2024-02-29T12:00:00.5Z",
            "author": "someone",
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Entrypoint": ["/bin/app", "--flag"],
                "Cmd": ["two words", ""],
                "Env": ["PATH=/bin", "EMPTY="],
                "WorkingDir": "/srv",
                "User": "1000:1000",
                "Labels": {"z": "1", "a": "2"}
            }
        });
        Self {
            config,
            layers,
            compression: Compression::Gzip,
            tag: "hello:v1".to_owned(),
        }
    }

    pub(crate) fn config_bytes(&self) -> Vec<u8> {
        let mut config = self.config.clone();
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        serde_json::to_vec(&config).unwrap()
    }

    /// Blobs, and the descriptor of the manifest.
    pub(crate) fn blobs(&self) -> (Files, Value) {
        let mut files = Files::new();
        let mut add = |media_type: &str, bytes: Vec<u8>| {
            let digest = digest(&bytes);
            let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
            files.push((format!("blobs/{}", digest.replace(':', "/")), bytes));
            descriptor
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| match self.compression {
                Compression::None => add("application/vnd.oci.image.layer.v1.tar", layer.clone()),
                Compression::Gzip => add("application/vnd.oci.image.layer.v1.tar+gzip", gzip(layer)),
                Compression::Zstd => add(
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                    zstd::encode_all(&layer[..], 3).unwrap(),
                ),
            })
            .collect();
        let config = add("application/vnd.oci.image.config.v1+json", self.config_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        let mut descriptor = add(
            "application/vnd.oci.image.manifest.v1+json",
            serde_json::to_vec(&manifest).unwrap(),
        );
        let tag = self.tag.rsplit(':').next().unwrap();
        descriptor["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{}", self.tag),
            "org.opencontainers.image.ref.name": tag,
        });
        (files, descriptor)
    }

    /// An OCI image layout.
    pub(crate) fn layout(&self) -> Files {
        layout(&[self])
    }

    /// What `docker save` wrote before it wrote OCI layouts: directories named by layer, and a link between equal layers.
    pub(crate) fn docker_save(&self) -> Files {
        let config = self.config_bytes();
        let config_name = format!("{}.json", digest(&config).trim_start_matches("sha256:"));
        let mut files = vec![(config_name.clone(), config)];
        let mut names = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            names.push(format!("{index:064x}/layer.tar"));
            files.push((names[index].clone(), layer.clone()));
        }
        let manifest = json!([{"Config": config_name, "RepoTags": [self.tag], "Layers": names}]);
        files.push(("manifest.json".to_owned(), serde_json::to_vec(&manifest).unwrap()));
        files
    }
}

/// A layout that holds several images.
pub(crate) fn layout(images: &[&Image]) -> Files {
    let mut files = vec![(
        "oci-layout".to_owned(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    )];
    let mut manifests = Vec::new();
    for image in images {
        let (blobs, descriptor) = image.blobs();
        files.extend(blobs);
        manifests.push(descriptor);
    }
    files.push(index(&manifests));
    files
}

pub(crate) fn index(manifests: &[Value]) -> (String, Vec<u8>) {
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    ("index.json".to_owned(), serde_json::to_vec(&index).unwrap())
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{}", hex.concat())
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn write_directory(files: &Files, directory: &Path) -> PathBuf {
    for (name, contents) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    directory.to_owned()
}

pub(crate) fn archive(files: &Files) -> Vec<u8> {
    files
        .iter()
        .fold(TarWriter::new(), |tar, (name, contents)| tar.file(name, contents))
        .finish()
}

/// A blobs directory, whose kernel is none.
pub(crate) fn write_blobs(directory: &Path) -> image::Blobs {
    let config =
        "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86_64 6.12.30 Kernel Configuration\n#\n";
    let files = [
        ("bzImage", &b"kernel"[..]),
        ("bzImage.config", config.as_bytes()),
        ("cmdline", b"console=ttyS0 reboot=k\n"),
        ("init", b"\x7fELF init"),
    ];
    fs::create_dir_all(directory).unwrap();
    for (name, contents) in files {
        fs::write(directory.join(name), contents).unwrap();
    }
    image::Blobs::in_directory(directory).unwrap()
}
