//! Where tests build, and how they look at what was built.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use eif::{Layout, SectionKind};
use image::{Blobs, BuildOptions, BuildReport, ImageError, Source, build};
use serde_json::Value;
use tempfile::TempDir;

use crate::images::{Image, write_blobs};
use crate::tar_writer::{Extra, TarWriter};

/// A directory with blobs in it, and room for inputs and outputs.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    pub(crate) blobs: Blobs,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("out")).unwrap();
        let blobs = write_blobs(&directory.path().join("blobs"));
        Self { directory, blobs }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    pub(crate) fn build_with(&self, source: &str, options: &BuildOptions) -> Result<Built, ImageError> {
        let source = Source::detect(self.path(source)).unwrap();
        let output = self.path("out/image.eif");
        let report = build(&source, &self.blobs, options, &output, &mut |_| {})?;
        Ok(Built {
            eif: fs::read(output).unwrap(),
            report,
        })
    }

    /// Builds with a fixed name, so that the name of the source makes no difference.
    pub(crate) fn build(&self, source: &str) -> Result<Built, ImageError> {
        self.build_with(
            source,
            &BuildOptions {
                name: Some("test".to_owned()),
                ..BuildOptions::default()
            },
        )
    }

    pub(crate) fn error(&self, source: &str) -> ImageError {
        let _ = fs::remove_file(self.path("out/image.eif"));
        let error = self.build(source).map(|_| ()).unwrap_err();
        assert_eq!(
            fs::read_dir(self.path("out")).unwrap().count(),
            0,
            "nothing stays behind"
        );
        error
    }
}

pub(crate) struct Built {
    pub(crate) eif: Vec<u8>,
    pub(crate) report: BuildReport,
}

impl Built {
    pub(crate) fn sections(&self, kind: SectionKind) -> Vec<&[u8]> {
        let layout = Layout::read(&&self.eif[..], self.eif.len() as u64).unwrap();
        let bytes = |section: &eif::Section| {
            &self.eif[usize::try_from(section.offset).unwrap()..usize::try_from(section.end()).unwrap()]
        };
        layout
            .sections
            .iter()
            .filter(|section| section.kind == kind)
            .map(bytes)
            .collect()
    }

    pub(crate) fn metadata(&self) -> Value {
        serde_json::from_slice(self.sections(SectionKind::Metadata)[0]).unwrap()
    }

    /// Unpacks one of the ramdisks, counted from 0, with GNU cpio.
    pub(crate) fn unpack(&self, ramdisk: usize) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--quiet", "--preserve-modification-time"])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin
            .take()
            .unwrap()
            .write_all(self.sections(SectionKind::Ramdisk)[ramdisk])
            .unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        directory
    }
}

/// All names below a directory with type and mode, contents or target.
pub(crate) fn listing(directory: &Path) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let what = if metadata.is_dir() {
                pending.push(path.clone());
                "directory".to_owned()
            } else if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else {
                fs::read_to_string(&path).unwrap()
            };
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            names.insert(name, format!("{:o} {what}", metadata.mode() & 0o7777));
        }
    }
    names
}

pub(crate) fn sample() -> Image {
    let extra = Extra {
        mode: 0o4755,
        owner: (12, 34),
        mtime: 1_600_000_000,
        pax: &[],
    };
    let lower = TarWriter::new()
        .directory("bin")
        .entry("bin/app", b'0', b"", b"application", extra)
        .device("dev/null", b'3', 1, 3)
        .file("etc/removed", "x")
        .symlink("var", "run")
        .finish();
    let upper = TarWriter::new()
        .file("etc/.wh.removed", "")
        .hard_link("usr/bin/app", "bin/app")
        .finish();
    Image::new(vec![lower, upper])
}

/// A root file system in which every kind of file occurs.
pub(crate) fn write_root(directory: &Path) {
    fs::create_dir_all(directory.join("sbin")).unwrap();
    fs::create_dir(directory.join("tmp")).unwrap();
    fs::set_permissions(directory.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(directory.join("sbin/init"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(directory.join("sbin/init"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(directory.join("sbin/init"), directory.join("sbin/second")).unwrap();
    std::os::unix::fs::symlink("/sbin/init", directory.join("link")).unwrap();
    std::os::unix::fs::chown(directory.join("sbin/init"), Some(5), Some(6)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap());
    fs::hard_link(directory.join("socket"), directory.join("second-socket")).unwrap();
    assert!(
        Command::new("mknod")
            .arg(directory.join("zero"))
            .args(["c", "1", "5"])
            .status()
            .unwrap()
            .success()
    );
}
