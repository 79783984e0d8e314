use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::range::FileRange;

fn read_all(archive: &[u8]) -> Result<Vec<Entry>, TarError> {
    let mut reader = Reader::new(Whole(archive));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        entries.push(entry);
    }
    Ok(entries)
}

/// Bytes in memory as an [`Input`].
struct Whole<'a>(&'a [u8]);

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Whole<'_> {}

/// Runs GNU tar in `directory` and returns the archive it makes of `names`.
fn gnu_tar(directory: &Path, options: &[&str], names: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--create", "--sort=name"])
        .args(options)
        .args(names)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// The contents of a file, put together from where the reader says they are.
fn contents(archive: &[u8], data: &Data) -> Vec<u8> {
    let slice = |offset: u64, length: u64| {
        &archive[usize::try_from(offset).unwrap()..usize::try_from(offset + length).unwrap()]
    };
    match &data.layout {
        Layout::Contiguous(offset) => slice(*offset, data.size).to_vec(),
        Layout::Sparse(extents) => {
            let mut file = vec![0; usize::try_from(data.size).unwrap()];
            for extent in extents {
                let at = usize::try_from(extent.at).unwrap();
                let part = slice(extent.offset, extent.length);
                file[at..at + part.len()].copy_from_slice(part);
            }
            file
        }
    }
}

/// A header block with a right checksum.
fn header(name: &[u8], flag: u8, size: &[u8], link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block[..name.len()].copy_from_slice(name);
    block[100..107].copy_from_slice(b"0000644");
    block[124..124 + size.len()].copy_from_slice(size);
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link);
    seal(&mut block);
    block
}

fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn pax(records: &[u8]) -> Vec<u8> {
    let mut bytes = header(b"pax", b'x', format!("{:011o}", records.len()).as_bytes(), b"");
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

#[test]
fn every_dialect_of_gnu_tar_gives_the_same_entries() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(120));
    std::fs::create_dir(at(&"d".repeat(90))).unwrap();
    std::fs::write(at(&long), b"long name").unwrap();
    std::fs::write(at("plain"), b"plain").unwrap();
    std::fs::hard_link(at("plain"), at("plain-2")).unwrap();
    std::os::unix::fs::symlink("../target", at("link")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("zero"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 5),
    )
    .unwrap();
    std::os::unix::fs::chown(at("plain"), Some(3_000_000), Some(7)).unwrap();

    for format in ["gnu", "posix", "oldgnu"] {
        let archive = gnu_tar(directory.path(), &["--format", format, "--mtime=@1000"], &["."]);
        let entries = read_all(&archive).unwrap();
        let find = |name: &str| {
            let name = format!("./{name}").into_bytes();
            entries
                .iter()
                .find(|entry| entry.name == name)
                .unwrap_or_else(|| panic!("{name:?} in {format}"))
        };
        let Kind::File(data) = &find(&long).kind else {
            panic!("no file")
        };
        assert_eq!(contents(&archive, data), b"long name", "{format}");
        let plain = find("plain");
        assert_eq!(
            (plain.attributes.uid, plain.attributes.gid, plain.attributes.mtime),
            (3_000_000, 7, 1000)
        );
        assert_eq!(find("plain-2").kind, Kind::HardLink(b"./plain".to_vec()));
        assert_eq!(find("link").kind, Kind::Symlink(b"../target".to_vec()));
        assert_eq!(
            find("zero").kind,
            Kind::Device(Device::Character { major: 1, minor: 5 })
        );
    }
}

#[test]
fn sparse_files_of_every_kind_are_put_together() {
    let directory = tempfile::tempdir().unwrap();
    let file = File::create(directory.path().join("sparse")).unwrap();
    // More than the four parts that an old GNU header holds, and more than one block of 21.
    for part in 0..60_u64 {
        file.write_all_at(format!("part {part}").as_bytes(), part * 65536)
            .unwrap();
    }
    file.set_len(60 * 65536 + 5).unwrap();
    let expected = std::fs::read(directory.path().join("sparse")).unwrap();
    let variants = [
        &["--format=gnu", "--sparse"][..],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ];
    for options in variants {
        let archive = gnu_tar(directory.path(), options, &["sparse"]);
        assert!(archive.len() < expected.len() / 4, "not stored sparsely");
        let entries = read_all(&archive).unwrap();
        let [
            Entry {
                name,
                kind: Kind::File(data),
                ..
            },
        ] = &entries[..]
        else {
            panic!("{entries:?}")
        };
        assert_eq!(name, b"sparse");
        assert_eq!(data.size, expected.len() as u64);
        assert!(contents(&archive, data) == expected, "{options:?}");
    }
}

#[test]
fn extended_attributes_are_read() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), b"").unwrap();
    rustix::fs::setxattr(
        directory.path().join("file"),
        "user.binary",
        b"a\0=\nb",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let archive = gnu_tar(directory.path(), &["--format=posix", "--xattrs"], &["file"]);
    assert_eq!(
        read_all(&archive).unwrap()[0].xattrs,
        [(b"user.binary".to_vec(), b"a\0=\nb".to_vec())]
    );
}

#[test]
fn pax_records_override_the_header() {
    let mut archive = pax(b"12 path=new\n11 uid=123\n22 mtime=-1.5000000000\n20 size=3 not number\n");
    archive.extend(header(b"old", b'0', b"00000000000", b""));
    assert!(matches!(read_all(&archive), Err(TarError::Pax(0))));

    let mut archive = pax(b"12 path=new\n11 uid=123\n13 mtime=9.5\n9 size=3\n");
    archive.extend(header(b"old", b'0', b"00000000000", b""));
    archive.extend(b"abc");
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    archive.extend(header(b"next", b'5', b"00000000000", b""));
    let entries = read_all(&archive).unwrap();
    assert_eq!(
        (
            entries[0].name.as_slice(),
            entries[0].attributes.uid,
            entries[0].attributes.mtime
        ),
        (&b"new"[..], 123, 9)
    );
    assert_eq!(
        (entries[1].name.as_slice(), &entries[1].kind),
        (&b"next"[..], &Kind::Directory)
    );
}

#[test]
fn numbers_are_octal_or_base_256() {
    assert_eq!(header::parse_number(b"0000644\0"), Some(0o644));
    assert_eq!(header::parse_number(b"   17 \0\0"), Some(0o17));
    assert_eq!(header::parse_number(b"\0\0\0\0"), Some(0));
    assert_eq!(
        header::parse_number(b"\x80\0\0\x02\0\0\0\0"),
        Some(0x02_0000_0000)
    );
    assert_eq!(
        header::parse_number(b"\xff\xff\xff\xff\xff\xff\xff\xfe"),
        Some(-2)
    );
    assert_eq!(
        header::parse_number(b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        None
    );
    assert_eq!(header::parse_number(b"12345678"), None);
}

#[test]
fn damage_is_named_with_its_position() {
    let mut archive = header(b"a", b'0', b"00000000003", b"");
    archive.extend([b'x'; BLOCK]);
    let good = archive.clone();
    archive.extend([b'y'; BLOCK]);
    assert!(matches!(read_all(&archive), Err(TarError::Checksum(1024))));
    assert!(matches!(read_all(&good[..600]), Err(TarError::Truncated(0))));
    assert!(matches!(read_all(&good[..100]), Err(TarError::Truncated(0))));
    assert_eq!(read_all(&good).unwrap().len(), 1);

    let odd_type = header(b"a", b'V', b"0", b"");
    assert!(matches!(
        read_all(&odd_type),
        Err(TarError::Type { offset: 0, .. })
    ));
    let negative = header(
        b"a",
        b'0',
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"",
    );
    assert!(matches!(
        read_all(&negative),
        Err(TarError::Number { field: "size", .. })
    ));
    let huge = header(b"a", b'0', b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b"");
    assert!(matches!(read_all(&huge), Err(TarError::Truncated(0))));
    let long_name = header(b"a", b'L', b"00010000000", b"");
    assert!(matches!(read_all(&long_name), Err(TarError::ExtensionTooLong(0))));
    assert!(matches!(
        read_all(&pax(b"12 path=new\n")),
        Err(TarError::Truncated(1024))
    ));
}

#[test]
fn a_sparse_map_that_lies_is_refused() {
    let sparse = |records: &[u8], data: &[u8]| {
        let mut archive = pax(records);
        archive.extend(header(b"s", b'0', format!("{:011o}", data.len()).as_bytes(), b""));
        archive.extend(data);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
        read_all(&archive)
    };
    let size = b"23 GNU.sparse.size=100\n";
    assert!(
        sparse(&[&size[..], b"25 GNU.sparse.map=0,2,9,1\n"].concat(), b"abc").is_err(),
        "record length"
    );
    assert!(sparse(&[&size[..], b"26 GNU.sparse.map=0,2,9,1\n"].concat(), b"abc").is_ok());
    for map in [
        &b"26 GNU.sparse.map=0,2,1,1\n"[..],
        b"26 GNU.sparse.map=9,2,0,1\n",
        b"27 GNU.sparse.map=0,2,99,2\n",
    ] {
        assert!(matches!(
            sparse(&[&size[..], map].concat(), b"abc"),
            Err(TarError::Sparse(_))
        ));
    }
    assert!(matches!(
        sparse(b"26 GNU.sparse.map=0,2,9,1\n", b"abc"),
        Err(TarError::Sparse(_))
    ));
    let version = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n";
    let real = [&version[..], size].concat();
    assert!(matches!(sparse(&real, b"abc"), Err(TarError::Sparse(_))));
    assert!(matches!(
        sparse(&real, b"99999999999999999999\n"),
        Err(TarError::Sparse(_))
    ));
    assert!(matches!(sparse(&real, b"1\n0\n7\n"), Err(TarError::Sparse(_))));
}

#[test]
fn contents_in_a_file_are_skipped_without_reading() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&header(b"big", b'0', b"\x80\0\0\0\0\0\0\x10\0\0\0\0", b""), 0)
        .unwrap();
    let after = 512 + (0x10_u64 << 32);
    file.write_all_at(&header(b"after", b'5', b"0", b""), after)
        .unwrap();
    let range = FileRange::new(Arc::new(file), 0, after + 512);
    let mut reader = Reader::new(range.reader());
    assert!(matches!(
        reader.next(),
        Ok(Some(Entry {
            kind: Kind::File(Data {
                size: 0x10_0000_0000,
                ..
            }),
            ..
        }))
    ));
    assert_eq!(reader.next().unwrap().unwrap().name, b"after");
    assert!(reader.next().unwrap().is_none());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut blocks in prop::collection::vec(any::<[u8; 32]>(), 0..64), flags in any::<[u8; 8]>()) {
        // Blocks with a right checksum, so that more than the checksum is tested.
        let mut archive = Vec::new();
        for (index, seed) in blocks.iter_mut().enumerate() {
            let mut block: Vec<u8> = seed.iter().cycle().take(BLOCK).copied().collect();
            block[156] = b"0123456xgLKS"[usize::from(flags[index % 8]) % 12];
            block[124..136].copy_from_slice(format!("{:011o}\0", seed[0]).as_bytes());
            seal(&mut block);
            archive.extend(block);
        }
        let _ = read_all(&archive);
    }

    #[test]
    fn pax_records_never_panic(records in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut archive = pax(&records);
        archive.extend(header(b"a", b'0', b"0", b""));
        let _ = read_all(&archive);
    }
}
