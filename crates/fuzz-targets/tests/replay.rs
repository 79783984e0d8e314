//! Every input that is kept, once.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

use std::fs;
use std::path::Path;

use fuzz_targets::TARGETS;

/// How many there were.
fn replay(directory: &Path, target: fn(&[u8])) -> usize {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in &paths {
        // A failure shows the last one.
        println!("{}", path.display());
        target(&fs::read(path).unwrap());
    }
    paths.len()
}

/// The inputs of one target.
fn hold(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap().check;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(replay(&root.join("corpus").join(name), target) >= 3);
    replay(&root.join("failures").join(name), target);
}

#[test]
fn daemon_frames() {
    hold("daemon-frame");
}

#[test]
fn files_of_the_daemon() {
    hold("daemon-files");
}

#[test]
fn configurations_of_the_allocator() {
    hold("allocator-configuration");
}

#[test]
fn nsm_devices() {
    hold("nsm-device");
}

#[test]
fn boot_images() {
    hold("boot-image");
}

#[test]
fn vsock_devices_of_the_kernel() {
    hold("vsock-kernel");
}

#[test]
fn nsm_requests() {
    hold("nsm-request");
}

#[test]
fn attestation_documents() {
    hold("attestation-document");
}

#[test]
fn attestation_certificates() {
    hold("attestation-certificate");
}

#[test]
fn eifs() {
    hold("eif");
}

#[test]
fn eif_signatures() {
    hold("eif-signature");
}

#[test]
fn image_layers() {
    hold("image-layer");
}

#[test]
fn image_documents() {
    hold("image-documents");
}

#[test]
fn image_references() {
    hold("image-reference");
}

#[test]
fn registry_challenges() {
    hold("registry-challenge");
}

#[test]
fn port_devices() {
    hold("port-devices");
}

#[test]
fn vsock_devices() {
    hold("vsock-device");
}

#[test]
fn files_of_vsock_proxy() {
    hold("vsock-proxy-files");
}

#[test]
fn what_targets_are_about_is_there() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for target in TARGETS {
        for module in target.modules {
            assert!(checkout.join(module).exists(), "{}: {module}", target.name);
        }
    }
}

#[test]
fn no_target_and_no_directory_is_forgotten() {
    for directory in ["corpus", "failures"] {
        let Ok(entries) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)) else {
            continue;
        };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(TARGETS.iter().any(|target| target.name == name), "{name}");
        }
    }
    assert_eq!(TARGETS.len(), 18, "each has its test above");
}
