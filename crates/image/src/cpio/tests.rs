use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Unpacks an archive with GNU cpio, an implementation independent of this one. Device nodes and owners need root.
fn extract(archive: &[u8], into: &Path) {
    let mut cpio = Command::new("cpio")
        .args([
            "--extract",
            "--quiet",
            "--make-directories",
            "--preserve-modification-time",
        ])
        .current_dir(into)
        .stdin(Stdio::piped())
        .spawn()
        .expect("GNU cpio is installed");
    cpio.stdin.take().unwrap().write_all(archive).unwrap();
    assert!(cpio.wait().unwrap().success());
}

fn name_of(bytes: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(bytes)
}

#[test]
fn gnu_cpio_extracts_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| directory.path().join(name_of(name));
    let mut archive = Writer::new(Vec::new());
    archive.directory("etc", Attributes::new(0o750)).unwrap();
    archive
        .file(
            "etc/su",
            Attributes {
                mode: 0o4755,
                uid: 1000,
                gid: 1001,
                mtime: 1_700_000_000,
            },
            b"12345",
        )
        .unwrap();
    archive
        .file(b"etc/\xff\n name", Attributes::new(0o600), b"odd name")
        .unwrap();
    archive.file("etc/empty", Attributes::new(0o644), b"").unwrap();
    archive.symlink("etc/link", "../nowhere").unwrap();
    archive
        .device("fifo", Attributes::new(0o620), Device::Fifo)
        .unwrap();
    archive
        .device(
            "null",
            Attributes::new(0o666),
            Device::Character { major: 1, minor: 3 },
        )
        .unwrap();
    archive
        .device(
            "vda",
            Attributes::new(0o600),
            Device::Block {
                major: 4095,
                minor: 1_048_575,
            },
        )
        .unwrap();
    archive
        .hard_links(
            &["one", "two", "three"],
            Attributes::new(0o644),
            6,
            &b"shared"[..],
        )
        .unwrap();
    extract(&archive.finish().unwrap(), directory.path());

    let su = at(b"etc/su").symlink_metadata().unwrap();
    assert_eq!(
        (su.mode(), su.uid(), su.gid(), su.mtime()),
        (0o104_755, 1000, 1001, 1_700_000_000)
    );
    assert_eq!(std::fs::read(at(b"etc/su")).unwrap(), b"12345");
    assert_eq!(std::fs::read(at(b"etc/\xff\n name")).unwrap(), b"odd name");
    assert_eq!(std::fs::read(at(b"etc/empty")).unwrap(), b"");
    assert_eq!(at(b"etc").metadata().unwrap().mode(), 0o040_750);
    assert_eq!(
        std::fs::read_link(at(b"etc/link")).unwrap(),
        Path::new("../nowhere")
    );
    assert!(at(b"fifo").metadata().unwrap().file_type().is_fifo());
    assert_eq!(at(b"null").metadata().unwrap().rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(
        at(b"vda").metadata().unwrap().rdev(),
        rustix::fs::makedev(4095, 1_048_575)
    );
    let (one, three) = (at(b"one").metadata().unwrap(), at(b"three").metadata().unwrap());
    assert_eq!((one.ino(), one.nlink()), (three.ino(), 3));
    assert_eq!(std::fs::read(at(b"two")).unwrap(), b"shared");
}

#[test]
fn an_entry_knows_its_size_beforehand() {
    for length in 0..9_u64 {
        for name in ["a", "ab", "abc", "abcd", "abcde"] {
            let entry = Entry {
                name: name.as_bytes(),
                inode: 1,
                links: 1,
                attributes: Attributes::new(0o644),
                kind: Kind::File { size: length },
            };
            let mut archive = Writer::new(Vec::new());
            archive
                .file(
                    name,
                    Attributes::new(0o644),
                    vec![7; usize::try_from(length).unwrap()],
                )
                .unwrap();
            let written = archive.finish().unwrap().len() - trailer().len();
            assert_eq!(entry.size(), written as u64, "{name}, {length} bytes");
            assert_eq!(written % 4, 0);
        }
    }
    let target = b"somewhere else";
    let link = Entry {
        name: b"link",
        inode: 1,
        links: 1,
        attributes: Attributes::new(0o777),
        kind: Kind::Symlink { target },
    };
    assert_eq!(link.size(), link.encode().unwrap().len() as u64);
}

#[test]
fn what_the_kernel_would_drop_is_refused() {
    let mut archive = Writer::new(Vec::new());
    let attributes = Attributes::new(0o644);
    for name in ["", "/etc", "TRAILER!!!", "a\0b"] {
        assert!(
            matches!(archive.file(name, attributes, b""), Err(Error::Name(_))),
            "{name:?}"
        );
    }
    for name in ["x".repeat(256), "x/".repeat(2048)] {
        assert!(matches!(
            archive.file(&name, attributes, b""),
            Err(Error::NameTooLong(_))
        ));
    }
    archive.file("x".repeat(255), attributes, b"").unwrap();
    assert!(matches!(
        archive.file_from("big", attributes, 1 << 32, io::empty()),
        Err(Error::FileTooLarge {
            size: 0x1_0000_0000,
            ..
        })
    ));
    for target in [String::new(), "t".repeat(4096), "a\0b".into()] {
        assert!(matches!(
            archive.symlink("link", &target),
            Err(Error::LinkTarget(_))
        ));
    }
    archive.symlink("link", "t".repeat(4095)).unwrap();
    for device in [
        Device::Character {
            major: 4096,
            minor: 0,
        },
        Device::Block {
            major: 0,
            minor: 1 << 20,
        },
    ] {
        assert!(matches!(
            archive.device("node", attributes, device),
            Err(Error::DeviceNumber(_))
        ));
    }
    assert!(matches!(
        archive.file_from("short", attributes, 3, &b"ab"[..]),
        Err(Error::Truncated(_))
    ));
}
