//! What is rare in images, from the image to what the kernel would unpack.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use image::{BuildOptions, ImageError, LayerError, TreeError};
use serde_json::json;
use tempfile::TempDir;

use crate::bench::Bench;
use crate::images::{Compression, Files, Image, archive, digest, gzip, write_directory};
use crate::tar_writer::{Extra, TarWriter};

/// The root file system of an enclave made of these layers.
struct Root(TempDir);

impl Root {
    fn of(layers: Vec<Vec<u8>>) -> Self {
        let bench = Bench::new();
        write_directory(&Image::new(layers).layout(), &bench.path("layout"));
        Self(bench.build("layout").unwrap().unpack(1))
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join("rootfs").join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names in a directory, without those that every root has.
    fn names(&self, directory: &str) -> BTreeSet<Vec<u8>> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().as_bytes().to_vec());
        let always = ["dev", "proc", "run", "sys", "tmp", "var"];
        names
            .filter(|name| !always.iter().any(|other| other.as_bytes() == name))
            .collect()
    }
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<Vec<u8>> {
    names.map(|name| name.as_bytes().to_vec()).into()
}

/// Builds an image of one layer, which must not be.
fn refused(layer: Vec<u8>) -> ImageError {
    let bench = Bench::new();
    write_directory(&Image::new(vec![layer]).layout(), &bench.path("layout"));
    bench.error("layout")
}

#[test]
fn whiteouts_and_opaque_directories() {
    let root = Root::of(vec![
        TarWriter::new()
            .file("kept", "")
            .file("removed", "")
            .file("emptied/old", "")
            .file("emptied/below/old", "")
            .file("gone/below/file", "")
            .finish(),
        TarWriter::new()
            .file(".wh.removed", "")
            .file("emptied/new", "")
            .file("emptied/.wh..wh..opq", "")
            .file(".wh.gone", "")
            .file(".wh.never-there", "")
            .finish(),
    ]);
    assert_eq!(root.names(""), set(["kept", "emptied"]));
    assert_eq!(root.names("emptied"), set(["new"]));
}

#[test]
fn hard_links_across_layers() {
    let root = Root::of(vec![
        TarWriter::new().file("first", "old").finish(),
        TarWriter::new().hard_link("second", "first").finish(),
        // A new file of an old name leaves the other name with the old contents.
        TarWriter::new()
            .hard_link("third", "second")
            .file("first", "new")
            .finish(),
    ]);
    assert_eq!(
        ["first", "second", "third"].map(|name| root.text(name)),
        ["new", "old", "old"]
    );
    let inode = |name| root.path(name).metadata().unwrap().ino();
    assert_eq!(inode("second"), inode("third"));
    assert_ne!(inode("second"), inode("first"));
}

#[test]
fn setuid_and_capabilities() {
    let capability: &[(&str, &[u8])] = &[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x20\0\0")];
    let with_capability = Extra {
        pax: capability,
        owner: (7, 8),
        ..Extra::mode(0o2755)
    };
    let root = Root::of(vec![
        TarWriter::new()
            .entry("su", b'0', b"", b"", Extra::mode(0o4755))
            .entry("ping", b'0', b"", b"", with_capability)
            .entry("sticky", b'5', b"", b"", Extra::mode(0o1777))
            .finish(),
    ]);
    let mode = |name| root.path(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!(
        [mode("su"), mode("ping"), mode("sticky")],
        [0o4755, 0o2755, 0o1777]
    );
    let ping = root.path("ping").metadata().unwrap();
    assert_eq!((ping.uid(), ping.gid()), (7, 8));
    assert_eq!(
        fs::read_to_string(root.0.path().join("xattrs")).unwrap(),
        "/ping security.capability \\x01\\x00\\x00\\x02\\x00\\x20\\x00\\x00\n"
    );
}

#[test]
fn device_nodes() {
    let root = Root::of(vec![
        TarWriter::new()
            .device("null", b'3', 1, 3)
            .device("disk", b'4', 259, 70_000)
            .device("pipe", b'6', 0, 0)
            .finish(),
    ]);
    let at = |name| root.path(name).symlink_metadata().unwrap();
    assert!(at("null").file_type().is_char_device());
    assert_eq!(at("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(at("disk").file_type().is_block_device());
    assert_eq!(at("disk").rdev(), rustix::fs::makedev(259, 70_000));
    assert!(at("pipe").file_type().is_fifo());
}

/// A sparse file (GNU tar's pax form 1.0) whose stored parts are at these places.
fn sparse(tar: TarWriter, name: &str, size: u64, parts: &[(u64, &[u8])]) -> TarWriter {
    let mut stored = format!("{}\n", parts.len());
    for (at, bytes) in parts {
        stored = format!("{stored}{at}\n{}\n", bytes.len());
    }
    let mut stored = stored.into_bytes();
    stored.resize(stored.len().next_multiple_of(512), 0);
    stored.extend(parts.iter().flat_map(|(_, bytes)| bytes.iter()));
    let size = size.to_string();
    let pax: &[(&str, &[u8])] = &[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", name.as_bytes()),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    tar.entry(
        name,
        b'0',
        b"",
        &stored,
        Extra {
            pax,
            ..Extra::mode(0o644)
        },
    )
}

#[test]
fn sparse_files() {
    const SIZE: u64 = 20 << 20;
    let parts: [(u64, &[u8]); 2] = [(0, b"begin"), (SIZE - 3, b"end")];
    let root = Root::of(vec![sparse(TarWriter::new(), "sparse", SIZE, &parts).finish()]);
    let mut file = File::open(root.path("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    let mut start = [0; 6];
    file.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"begin\0");
    file.seek(SeekFrom::Start(SIZE - 4)).unwrap();
    let mut end = Vec::new();
    file.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"\0end");
}

#[test]
fn files_above_4_gib_are_refused_by_name() {
    // A ramdisk has 32 bits for a file's size. As sparse files they take no room here.
    let error = refused(sparse(TarWriter::new(), "data/huge", 1 << 32, &[]).finish());
    let ImageError::Ramdisk(image::cpio::Error::FileTooLarge { name, size }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!((name.as_str(), *size), ("rootfs/data/huge", 1 << 32));
    let header = TarWriter::new().entry(
        "huge",
        b'0',
        b"",
        b"",
        Extra {
            pax: &[("size", b"18446744073709551615")],
            ..Extra::mode(0o644)
        },
    );
    assert!(matches!(
        refused(header.finish()),
        ImageError::Layer {
            source: LayerError::Tar(_),
            ..
        }
    ));
}

#[test]
fn absolute_and_escaping_symlinks() {
    let outside = tempfile::tempdir().unwrap();
    let root = Root::of(vec![
        TarWriter::new()
            .symlink("absolute", outside.path().as_os_str().as_bytes())
            .symlink("up", "../../../../../../../../tmp")
            .symlink("lib", "/usr/lib")
            .directory("usr/lib")
            .finish(),
        // Through the links, as a layer above may.
        TarWriter::new()
            .file("absolute/one", "1")
            .file("up/two", "2")
            .file("lib/three", "3")
            .finish(),
    ]);
    assert_eq!(
        fs::read_dir(outside.path()).unwrap().count(),
        0,
        "nothing is written outside"
    );
    assert_eq!(fs::read_link(root.path("absolute")).unwrap(), outside.path());
    assert_eq!(
        fs::read_link(root.path("up")).unwrap(),
        Path::new("../../../../../../../../tmp")
    );
    let within = outside.path().strip_prefix("/").unwrap();
    assert_eq!(fs::read_to_string(root.path(within.join("one"))).unwrap(), "1");
    assert_eq!(
        (root.text("tmp/two"), root.text("usr/lib/three")),
        ("2".into(), "3".into())
    );
}

#[test]
fn names_with_newlines_and_without_utf_8() {
    let names: [&[u8]; 4] = [b"new\nline", b"\xff\xfe", b" \t\\", b"-rf *"];
    let layer = names
        .iter()
        .fold(TarWriter::new(), |tar, name| tar.file(name, name))
        .symlink("link", b"to\n\xff");
    let root = Root::of(vec![layer.finish()]);
    for name in names {
        assert_eq!(fs::read(root.path(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(
        fs::read_link(root.path("link")).unwrap().as_os_str().as_bytes(),
        b"to\n\xff"
    );

    let root = Root::of(vec![
        TarWriter::new().file("a\nb", "").file("c", "").finish(),
        TarWriter::new().file(".wh.a\nb", "").finish(),
    ]);
    assert_eq!(root.names(""), set(["c"]));
}

#[test]
fn a_hundred_layers_in_each_compression() {
    let layer = |index: usize| {
        let tar = TarWriter::new()
            .file(format!("layer-{index}"), index.to_string())
            .file("last", index.to_string());
        match index.checked_sub(1) {
            Some(below) => tar.file(format!(".wh.layer-{below}"), "").finish(),
            None => tar.finish(),
        }
    };
    let mut image = Image::new((0..100).map(layer).collect());
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let bench = Bench::new();
        image.compression = compression;
        write_directory(&image.layout(), &bench.path("layout"));
        let root = Root(bench.build("layout").unwrap().unpack(1));
        assert_eq!(root.names(""), set(["last", "layer-99"]), "{compression:?}");
        assert_eq!(root.text("last"), "99");
    }
}

#[test]
fn a_zip_slip_is_refused_by_name() {
    for name in ["../../etc/cron.d/evil", "usr/../../etc/evil", "a/b/../../../evil"] {
        let error = refused(TarWriter::new().file(name, "evil").finish());
        let ImageError::Layer {
            source: LayerError::Entry { name: named, source },
            ..
        } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(named, name);
        assert!(matches!(source, TreeError::Escapes), "{source:?}");
    }
    let hard_link = TarWriter::new().hard_link("mine", "../../etc/shadow").finish();
    assert!(matches!(
        refused(hard_link),
        ImageError::Layer {
            source: LayerError::Entry { .. },
            ..
        }
    ));
}

#[test]
fn a_gzip_bomb_stops_at_the_limit() {
    // A thousand times as large as it looks.
    let bomb = TarWriter::new().file("zeros", vec![0; 32 << 20]).finish();
    assert!(gzip(&bomb).len() < 1 << 20);
    let bench = Bench::new();
    let mut image = Image::new(vec![bomb]);
    let mut options = BuildOptions::default();
    options.limits.unpacked = 8 << 20;
    for compression in [Compression::Gzip, Compression::Zstd] {
        image.compression = compression;
        let name = format!("{compression:?}");
        write_directory(&image.layout(), &bench.path(&name));
        let error = bench.build_with(&name, &options).map(|_| ()).unwrap_err();
        assert!(
            matches!(
                error,
                ImageError::Layer {
                    source: LayerError::TooLarge(_),
                    ..
                }
            ),
            "{error:?}"
        );
    }
    bench.file("bomb.tar.gz", &gzip(&archive(&image.docker_save())));
    let error = bench.build_with("bomb.tar.gz", &options).map(|_| ()).unwrap_err();
    assert!(matches!(error, ImageError::Unpack { .. }), "{error:?}");
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 0);
}

#[test]
fn an_image_without_its_configuration_is_refused() {
    let image = Image::new(vec![TarWriter::new().file("a", "").finish()]);
    let config = digest(&image.config_bytes());
    let hex = config.trim_start_matches("sha256:");
    let without: Files = image
        .layout()
        .into_iter()
        .filter(|(name, _)| !name.ends_with(hex))
        .collect();
    let bench = Bench::new();
    write_directory(&without, &bench.path("layout"));
    let error = bench.error("layout");
    assert!(
        matches!(&error, ImageError::Missing(name) if name.ends_with(hex)),
        "{error:?}"
    );

    let docker: Files = image
        .docker_save()
        .into_iter()
        .filter(|(name, _)| !name.contains(hex))
        .collect();
    bench.file("docker.tar", &archive(&docker));
    let error = bench.error("docker.tar");
    assert!(
        matches!(&error, ImageError::Missing(name) if name.contains(hex)),
        "{error:?}"
    );

    let unnamed = serde_json::to_vec(&json!([{"RepoTags": null, "Layers": []}])).unwrap();
    bench.file("unnamed.tar", &archive(&vec![("manifest.json".into(), unnamed)]));
    assert!(matches!(bench.error("unnamed.tar"), ImageError::Json { .. }));
}
