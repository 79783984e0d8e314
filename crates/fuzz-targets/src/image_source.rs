//! Container images: the documents of one and the archive of a layer, each in an image that is sound otherwise. Digests are made to
//! fit, so that they do not keep inputs from the parsers behind them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::OnceLock;

use image::{Blobs, BuildOptions, BuildReport, ImageError, Limits, Source, measure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Bytes that an image may unpack to here, and bytes of names: enough to reach each limit.
const LIMITS: Limits = Limits {
    unpacked: 256 << 10,
    metadata: 64 << 10,
};

/// A layer gives the same image whether or not it is compressed, or none.
pub(crate) fn check_layer(input: &[u8]) {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let compressed = gzip
        .write_all(input)
        .and_then(|()| gzip.finish())
        .expect("a vector");
    // What is compressed already would be unpacked twice.
    let is_plain = !input.starts_with(&[0x1f, 0x8b]) && !input.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let outcomes = [input, &compressed].map(|blob| with_layer(blob, if is_plain { input } else { blob }));
    if let [Ok(plain), Ok(packed)] = &outcomes
        && is_plain
    {
        assert_eq!(plain.measurements, packed.measurements);
    }
    if is_plain {
        assert_eq!(outcomes[0].is_ok(), outcomes[1].is_ok(), "{outcomes:?}");
    }
}

/// The first byte says which document the rest is. What is built can be started, and is the same each time.
pub(crate) fn check_documents(input: &[u8]) {
    let Some((role, document)) = input.split_first() else {
        return;
    };
    if let Ok(report) = with_document(*role, document) {
        assert!(!report.execution.command.is_empty());
        assert!(
            report
                .execution
                .command
                .iter()
                .all(|word| !word.contains(['\n', '\0']))
        );
        let again = with_document(*role, document).expect("it was built");
        assert_eq!(again.measurements, report.measurements);
    }
}

/// An image of this layer, whose archive is `plain`.
fn with_layer(blob: &[u8], plain: &[u8]) -> Result<BuildReport, ImageError> {
    let config = config(&[digest(plain)]).to_string();
    let manifest = manifest(config.as_bytes(), &[blob]).to_string();
    measured(config.as_bytes(), manifest.as_bytes(), &[blob])
}

/// An image of an empty layer, of which one document is this.
fn with_document(role: u8, document: &[u8]) -> Result<BuildReport, ImageError> {
    let layer = vec![0; 1024];
    let config = config(&[digest(&layer)]).to_string();
    match role % 4 {
        0 => {
            let manifest = manifest(document, &[&layer]).to_string();
            measured(document, manifest.as_bytes(), &[&layer])
        }
        1 => measured(config.as_bytes(), document, &[&layer]),
        2 => with_index(document, config.as_bytes(), &layer),
        _ => docker_archive(document, config.as_bytes(), &layer),
    }
}

/// An image layout of these parts, measured.
fn measured(config: &[u8], manifest: &[u8], layers: &[&[u8]]) -> Result<BuildReport, ImageError> {
    let index = json!({"manifests": [descriptor("manifest", manifest)]}).to_string();
    let place = place();
    for blob in [config, manifest].into_iter().chain(layers.iter().copied()) {
        put_blob(place.path(), blob);
    }
    put(&place.path().join("index.json"), index.as_bytes());
    measure_at(place.path())
}

fn with_index(index: &[u8], config: &[u8], layer: &[u8]) -> Result<BuildReport, ImageError> {
    let place = place();
    let manifest = manifest(config, &[layer]).to_string();
    for blob in [config, manifest.as_bytes(), layer] {
        put_blob(place.path(), blob);
    }
    put(&place.path().join("index.json"), index);
    measure_at(place.path())
}

/// What `docker save` wrote before it wrote layouts, unpacked. The names are those of the seeds.
fn docker_archive(manifest: &[u8], config: &[u8], layer: &[u8]) -> Result<BuildReport, ImageError> {
    let place = place();
    put(&place.path().join("manifest.json"), manifest);
    put(&place.path().join("config.json"), config);
    put(&place.path().join("layer.tar"), layer);
    measure_at(place.path())
}

fn measure_at(directory: &Path) -> Result<BuildReport, ImageError> {
    let options = BuildOptions {
        limits: LIMITS,
        ..BuildOptions::default()
    };
    measure(&Source::detect(directory)?, blobs(), &options, &mut |_| {})
}

fn place() -> TempDir {
    let place = tempfile::tempdir().expect("room");
    fs::create_dir_all(place.path().join("blobs/sha256")).expect("room");
    place
}

fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("room");
}

fn put_blob(directory: &Path, bytes: &[u8]) {
    put(
        &directory.join("blobs").join(digest(bytes).replace(':', "/")),
        bytes,
    );
}

fn digest(bytes: &[u8]) -> String {
    let hex: Vec<String> = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{}", hex.concat())
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}.v1+json"),
        "digest": digest(bytes),
        "size": bytes.len(),
    })
}

fn config(diff_ids: &[String]) -> Value {
    json!({
        "os": "linux",
        "architecture": "amd64",
        "config": {"Cmd": ["/app"]},
        "rootfs": {"diff_ids": diff_ids},
    })
}

fn manifest(config: &[u8], layers: &[&[u8]]) -> Value {
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(layer),
                "size": layer.len(),
            })
        })
        .collect();
    json!({"config": descriptor("config", config), "layers": layers})
}

/// Kernel and init, which are not what this is about.
fn blobs() -> &'static Blobs {
    static BLOBS: OnceLock<(TempDir, Blobs)> = OnceLock::new();
    let (_, blobs) = BLOBS.get_or_init(|| {
        let directory = tempfile::tempdir().expect("room");
        for name in ["bzImage", "cmdline", "init"] {
            put(&directory.path().join(name), b"x");
        }
        put(
            &directory.path().join("bzImage.config"),
            b"#\n#\n# Linux/x86_64 6.12.0 Kernel Configuration\n",
        );
        let blobs = Blobs::in_directory(directory.path()).expect("all are there");
        (directory, blobs)
    });
    blobs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_images() {
        let seeds = |target: &str| {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
            let entries = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
            entries
                .filter(|path| path.to_string_lossy().contains("/seed-"))
                .map(|path| fs::read(path).unwrap())
                .collect::<Vec<_>>()
        };
        for layer in seeds("image-layer") {
            let report = with_layer(&layer, &layer);
            // Of a compressed one, the archive would have to be known.
            assert!(report.is_ok() || layer.starts_with(&[0x1f, 0x8b]), "{report:?}");
        }
        for document in seeds("image-documents") {
            with_document(document[0], &document[1..]).unwrap();
        }
    }
}
