//! Debian's `docker-registry` on a loopback address, with what is to be in it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::container_images::{Image, digest};
use crate::test_server::closed_port;

/// A user of registries with a password, and the line of an htpasswd file that knows it (bcrypt).
pub(crate) const USER: (&str, &str) = ("me", "s3cret");
const HTPASSWD: &str = "me:$2b$04$QGVbEzBDuaT/JIZNbL.27u6jqI668sFS9CA3W5P9kAF2ehe7XnVTG\n";

/// What a registry asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Access {
    Open,
    Password,
    /// TLS with a certificate of the authority `ca.pem`, for 127.0.0.1.
    Tls,
}

/// A running registry. Its storage outlives it, so that another can be started over the same images.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
}

impl Registry {
    /// Starts one whose files are in `directory`.
    pub(crate) fn start(directory: &Path, access: Access) -> Self {
        let host = format!("127.0.0.1:{}", closed_port());
        let at = |name: &str| directory.join(name).display().to_string();
        let mut configuration = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            at("storage")
        );
        match access {
            Access::Open => {}
            Access::Password => {
                fs::write(directory.join("htpasswd"), HTPASSWD).unwrap();
                let file = at("htpasswd");
                configuration += "auth:\n  htpasswd:\n    realm: test\n    path: ";
                configuration += &file;
            }
            Access::Tls => {
                make_certificates(directory);
                let (certificate, key) = (at("server.pem"), at("server.key"));
                configuration =
                    format!("{configuration}  tls:\n    certificate: {certificate}\n    key: {key}\n");
            }
        }
        let file = directory.join("registry.yml");
        fs::write(&file, configuration).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("registry.log")).unwrap())
            .spawn()
            .expect("docker-registry is installed, as by `cargo xtask test`");
        while TcpStream::connect(&host).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, host }
    }

    /// Puts an image into an open registry and returns the digest of its manifest.
    pub(crate) fn push(&self, image: &Image, name: &str, tag: &str) -> String {
        let base = format!("http://{}/v2/{name}", self.host);
        let (files, descriptor) = image.blobs();
        let manifest_digest = descriptor["digest"].as_str().unwrap();
        for (_, bytes) in &files {
            let digest = digest(bytes);
            if digest == manifest_digest {
                continue;
            }
            let upload = ureq::post(format!("{base}/blobs/uploads/")).send_empty().unwrap();
            let location = upload.headers()["location"].to_str().unwrap().to_owned();
            ureq::put(location)
                .query("digest", digest)
                .send(&bytes[..])
                .unwrap();
        }
        let (_, manifest) = files.last().unwrap();
        self.put_manifest(name, tag, manifest, "application/vnd.oci.image.manifest.v1+json");
        manifest_digest.to_owned()
    }

    /// Puts an index of manifests that are there.
    pub(crate) fn push_index(&self, name: &str, tag: &str, index: &Value) {
        let bytes = serde_json::to_vec(index).unwrap();
        self.put_manifest(name, tag, &bytes, "application/vnd.oci.image.index.v1+json");
    }

    fn put_manifest(&self, name: &str, tag: &str, manifest: &[u8], media_type: &str) {
        ureq::put(format!("http://{}/v2/{name}/manifests/{tag}", self.host))
            .content_type(media_type)
            .send(manifest)
            .unwrap();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// `ca.pem`, and `server.pem` and `server.key`, which it has signed.
fn make_certificates(directory: &Path) {
    let script = "set -e
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -subj /CN=registry -keyout server.key -out server.csr
        printf 'subjectAltName=IP:127.0.0.1\\n' > extensions
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile extensions -out server.pem";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// A file with the user's password for a registry, as `docker login` writes it.
pub(crate) fn log_in(directory: &Path, host: &str, password: &str) -> PathBuf {
    let file = directory.join("config.json");
    let json = serde_json::json!({"auths": {host: {"username": USER.0, "password": password}}});
    fs::write(&file, json.to_string()).unwrap();
    file
}
