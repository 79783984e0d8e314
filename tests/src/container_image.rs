//! Container images of one layer, written in the forms that build-enclave reads.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command::{self, Finished};
use crate::parent;

/// An image: a few files, and how to start.
#[derive(Debug, Clone, Default)]
pub struct ContainerImage {
    files: Vec<ImageFile>,
    specials: Vec<Special>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: String,
    user: String,
}

#[derive(Debug, Clone)]
struct ImageFile {
    /// Without a leading slash.
    path: String,
    mode: u32,
    contents: Vec<u8>,
    /// Extended attributes: name and value.
    xattrs: Vec<(String, Vec<u8>)>,
}

/// What only a layer can hold: [`ContainerImage::write_root_directory`] leaves it out.
#[derive(Debug, Clone)]
enum Special {
    /// A file of this owner.
    Owned { file: ImageFile, uid: u64, gid: u64 },
    /// Another name of a file.
    HardLink { path: String, target: String },
    /// A character device.
    Device { path: String, major: u32, minor: u32 },
}

impl ContainerImage {
    /// An image without files that starts nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// An image that holds the application `name` of `src/bin` as `/bin/name` and starts it with these arguments.
    ///
    /// # Panics
    /// If the application is not in this parent instance.
    pub fn of_application(name: &str, arguments: &[&str]) -> Self {
        let program = fs::read(parent::guest_application(name)).expect("read the application");
        let path = format!("bin/{name}");
        Self::empty()
            .with_file(&path, 0o755, program)
            .with_entrypoint(&[&format!("/{path}")])
            .with_cmd(arguments)
    }

    /// One more program, as `/bin/name`.
    ///
    /// # Panics
    /// If the program cannot be read.
    #[must_use]
    pub fn with_program(self, name: &str, program: &Path) -> Self {
        let program = fs::read(program).expect("read the program");
        self.with_file(&format!("bin/{name}"), 0o755, program)
    }

    /// One more file, owned by root. `path` has no leading slash.
    #[must_use]
    pub fn with_file(mut self, path: &str, mode: u32, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push(ImageFile {
            path: path.to_owned(),
            mode,
            contents: contents.into(),
            xattrs: Vec::new(),
        });
        self
    }

    /// One more extended attribute of a file of the image.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn with_attribute(mut self, path: &str, name: &str, value: &[u8]) -> Self {
        let mut files = self.files.iter_mut();
        let file = files.find(|file| file.path == path).expect("a file of the image");
        file.xattrs.push((name.to_owned(), value.to_vec()));
        self
    }

    /// One more file, owned by somebody.
    #[must_use]
    pub fn with_file_of(
        mut self,
        (uid, gid): (u64, u64),
        path: &str,
        mode: u32,
        contents: impl Into<Vec<u8>>,
    ) -> Self {
        let file = ImageFile {
            path: path.to_owned(),
            mode,
            contents: contents.into(),
            xattrs: Vec::new(),
        };
        self.specials.push(Special::Owned { file, uid, gid });
        self
    }

    /// Another name for a file that was added before with an owner.
    #[must_use]
    pub fn with_hard_link(mut self, path: &str, target: &str) -> Self {
        self.specials.push(Special::HardLink {
            path: path.to_owned(),
            target: target.to_owned(),
        });
        self
    }

    /// A character device that everybody may use.
    #[must_use]
    pub fn with_device(mut self, path: &str, major: u32, minor: u32) -> Self {
        self.specials.push(Special::Device {
            path: path.to_owned(),
            major,
            minor,
        });
        self
    }

    /// `ENTRYPOINT`.
    #[must_use]
    pub fn with_entrypoint(self, words: &[&str]) -> Self {
        Self {
            entrypoint: owned(words),
            ..self
        }
    }

    /// `CMD`.
    #[must_use]
    pub fn with_cmd(self, words: &[&str]) -> Self {
        Self {
            cmd: owned(words),
            ..self
        }
    }

    /// `ENV`.
    #[must_use]
    pub fn with_env(self, variables: &[&str]) -> Self {
        Self {
            env: owned(variables),
            ..self
        }
    }

    /// `WORKDIR`.
    #[must_use]
    pub fn with_working_dir(self, path: &str) -> Self {
        Self {
            working_dir: path.to_owned(),
            ..self
        }
    }

    /// `USER`.
    #[must_use]
    pub fn with_user(self, user: &str) -> Self {
        Self {
            user: user.to_owned(),
            ..self
        }
    }

    /// Writes it as a directory of the shape of AWS's second ramdisk: `rootfs/` beside `cmd`, `env`, `workdir`, `user`.
    ///
    /// # Panics
    /// If files cannot be written; so do all that follow.
    pub fn write_root_directory(&self, directory: &Path) {
        let root = directory.join("rootfs");
        fs::create_dir_all(&root).expect("create the root directory");
        for file in &self.files {
            let path = root.join(&file.path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("create a directory");
            fs::write(&path, &file.contents).expect("write a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(file.mode)).expect("change the mode");
            for (name, value) in &file.xattrs {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(&path, name, value, flags).expect("set an attribute");
            }
        }
        let command = [&self.entrypoint[..], &self.cmd[..]].concat();
        for (name, lines) in [
            ("cmd", command),
            ("env", self.env.clone()),
            ("workdir", vec![self.working_dir.clone()]),
            ("user", vec![self.user.clone()]),
        ] {
            fs::write(directory.join(name), lines.join("\n") + "\n").expect("write a start file");
        }
    }

    /// Writes it as an OCI image layout.
    ///
    /// # Panics
    /// If files cannot be written.
    pub fn write_oci_layout(&self, directory: &Path) {
        let layer = self.layer();
        let config = self.config(&layer);
        let manifest = to_json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }));
        let index = json!({
            "schemaVersion": 2,
            "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)],
        });
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("create the layout");
        for blob in [layer, config, manifest] {
            fs::write(blobs.join(sha256(&blob)), blob).expect("write a blob");
        }
        fs::write(directory.join("index.json"), to_json(&index)).expect("write the index");
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(directory.join("oci-layout"), to_json(&version)).expect("write the version");
    }

    /// Writes it as `docker save` of old did.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write_docker_archive(&self, path: &Path) {
        let layer = self.layer();
        let config = self.config(&layer);
        let config_name = format!("{}.json", sha256(&config));
        let manifest = json!([{
            "Config": config_name,
            "RepoTags": ["application:latest"],
            "Layers": ["layer/layer.tar"],
        }]);
        let mut archive = tar::Builder::new(File::create(path).expect("create the archive"));
        for (name, contents) in [
            ("layer/layer.tar", layer),
            (&config_name, config),
            ("manifest.json", to_json(&manifest)),
        ] {
            append(&mut archive, name, 0o644, &contents);
        }
        archive.finish().expect("write the archive");
    }

    /// Builds an EIF of it with nitro-cli, by way of an OCI layout beside the output.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn build(&self, output: &Path) -> Finished {
        self.build_with(output, build_enclave)
    }

    /// The same on another kernel than the one that nitro-cli takes by default.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn build_on_kernel(&self, kernel: &Path, output: &Path) -> Finished {
        let blobs = output.with_extension("blobs");
        fs::create_dir_all(&blobs).expect("create the directory for blobs");
        for name in ["bzImage.config", "cmdline", "init"] {
            fs::copy(parent::blob(name), blobs.join(name)).expect("copy a blob");
        }
        fs::copy(kernel, blobs.join("bzImage")).expect("copy the kernel");
        let finished = self.build_with(output, |layout, output| {
            command::run(build_command(layout, output).env("NITRO_CLI_BLOBS", &blobs))
        });
        fs::remove_dir_all(&blobs).expect("remove the blobs");
        finished
    }

    #[track_caller]
    fn build_with(&self, output: &Path, build: impl FnOnce(&Path, &Path) -> Finished) -> Finished {
        let layout = output.with_extension("oci");
        self.write_oci_layout(&layout);
        let finished = build(&layout, output).succeeded();
        fs::remove_dir_all(&layout).expect("remove the layout");
        finished
    }

    /// The layer, an uncompressed tar archive. All times are 0, as in EIFs of root file systems.
    fn layer(&self) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut directories = std::collections::BTreeSet::new();
        for file in &self.files {
            let above = Path::new(&file.path).ancestors().skip(1);
            let above = above.filter(|path| !path.as_os_str().is_empty());
            directories.extend(above.map(Path::to_owned));
        }
        for directory in directories {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            archive
                .append_data(&mut header, directory, std::io::empty())
                .expect("append a directory");
        }
        for file in &self.files {
            let name = |name: &str| format!("SCHILY.xattr.{name}");
            let records: Vec<_> = file
                .xattrs
                .iter()
                .map(|(key, value)| (name(key), value))
                .collect();
            let records = records
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_slice()));
            archive.append_pax_extensions(records).expect("append attributes");
            append(&mut archive, &file.path, file.mode, &file.contents);
        }
        for special in &self.specials {
            special.append_to(&mut archive);
        }
        archive.into_inner().expect("finish the layer")
    }

    fn config(&self, layer: &[u8]) -> Vec<u8> {
        to_json(&json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.cmd,
                "Env": self.env,
                "WorkingDir": self.working_dir,
                "User": self.user,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(layer))] },
        }))
    }
}

impl Special {
    fn append_to<W: std::io::Write>(&self, archive: &mut tar::Builder<W>) {
        let appended = match self {
            Self::Owned { file, uid, gid } => {
                let mut header = header(tar::EntryType::Regular, file.mode, file.contents.len());
                header.set_uid(*uid);
                header.set_gid(*gid);
                archive.append_data(&mut header, &file.path, file.contents.as_slice())
            }
            Self::HardLink { path, target } => {
                archive.append_link(&mut header(tar::EntryType::Link, 0o644, 0), path, target)
            }
            Self::Device { path, major, minor } => {
                let mut header = header(tar::EntryType::Char, 0o666, 0);
                header.set_device_major(*major).expect("a ustar header");
                header.set_device_minor(*minor).expect("a ustar header");
                archive.append_data(&mut header, path, std::io::empty())
            }
        };
        appended.expect("append to the layer");
    }
}

/// `nitro-cli build-enclave` of any input.
#[must_use]
pub fn build_enclave(input: &Path, output: &Path) -> Finished {
    command::run(&mut build_command(input, output))
}

fn build_command(input: &Path, output: &Path) -> Command {
    let mut command = Command::new("nitro-cli");
    command
        .args(["build-enclave", "--docker-uri"])
        .arg(input)
        .arg("--output-file")
        .arg(output);
    command
}

fn append<W: std::io::Write>(archive: &mut tar::Builder<W>, path: &str, mode: u32, contents: &[u8]) {
    let mut header = header(tar::EntryType::Regular, mode, contents.len());
    archive
        .append_data(&mut header, path, contents)
        .expect("append a file");
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len() })
}

fn sha256(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16));
    Sha256::digest(bytes).iter().flat_map(digits).flatten().collect()
}

fn to_json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().copied().map(String::from).collect()
}
