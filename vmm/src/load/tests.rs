//! Whole images, loaded into plain memory.

use std::{
    cell::RefCell,
    io::{self, Cursor, Write},
    ops::Range,
};

use eif::{Arch, Builder, FileCrc, HEADER_LEN, Section, SignatureError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::arch::kernel_images::{bzimage, elf};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const RAM: u64 = 16 * MIB;

fn eif_of(kernel: &[u8], cmdline: &str, ramdisks: &[&[u8]]) -> Vec<u8> {
    let mut image = Cursor::new(Vec::new());
    let kernel = &mut Cursor::new(kernel);
    let mut builder = Builder::new(
        &mut image,
        Arch::X86_64,
        kernel,
        cmdline.as_bytes(),
        &Metadata::default(),
    )
    .unwrap();
    for ramdisk in ramdisks {
        builder.add_ramdisk(&mut Cursor::new(ramdisk)).unwrap();
    }
    builder.finish().unwrap();
    image.into_inner()
}

fn file_of(image: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    file
}

/// Bytes that differ from one place to the next.
fn pattern(length: u64) -> Vec<u8> {
    (0..length).map(|index| (index % 251).to_le_bytes()[0]).collect()
}

fn read(memory: &GuestMemoryMmap, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

#[test]
fn memory_files_may_end_anywhere_in_kernel_and_ramdisks() {
    let mut kernel = elf(
        2 * MIB,
        &[
            (KIB, 40 * KIB, 40 * KIB, 2 * MIB - 4 * KIB),
            (41 * KIB, 3 * MIB, 3 * MIB, 5 * MIB),
        ],
    );
    let data = pattern(3 * MIB + 41 * KIB);
    kernel[1024..].copy_from_slice(&data[1024..]);
    let ramdisk = pattern(5 * MIB + 123);
    let file = file_of(&eif_of(&kernel, "quiet", &[b"one", &ramdisk]));
    let cuts = [0, 2 * MIB, 6 * MIB + 4 * KIB, 12 * MIB + 4 * KIB, RAM];
    let ranges: Vec<_> = cuts
        .windows(2)
        .map(|cut| (GuestAddress(cut[0]), usize::try_from(cut[1] - cut[0]).unwrap()))
        .collect();
    let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();

    let loaded = load(&file, ExclusiveMemory::before_start(&memory), RAM).unwrap();

    let first = 2 * MIB - 4 * KIB;
    assert!(read(&memory, first, 40 << 10) == kernel[1 << 10..41 << 10]);
    assert!(read(&memory, 5 * MIB, 3 << 20) == kernel[41 << 10..]);
    let (initrd, length) = loaded.initrd.unwrap();
    assert_eq!(length, 4 + 5 * MIB + 124);
    assert!(read(&memory, initrd + 4, ramdisk.len()) == ramdisk);
}

#[test]
fn a_command_line_that_comes_before_its_kernel_obeys_its_limit_too() {
    let mut kernel = bzimage(4, 1024);
    kernel[0x238..0x23c].copy_from_slice(&100_u32.to_le_bytes());
    let cmdline = [b'x'; 90];
    let [kernel, cmdline] = [
        (SectionKind::Kernel, &kernel[..]),
        (SectionKind::Cmdline, &cmdline),
    ];

    for order in [[kernel, cmdline], [cmdline, kernel]] {
        let metadata = (SectionKind::Metadata, METADATA);
        let error = load_image(&assemble(&[order[0], order[1], metadata])).unwrap_err();

        assert!(
            matches!(error, LoadError::CmdlineTooLong { limit: 100, .. }),
            "{error}"
        );
    }
}

#[test]
fn every_byte_of_the_file_is_read_once() {
    // Both forms of the kernel; the ELF file has bytes before, between and after its segments.
    let mut elf = elf(
        2 * MIB,
        &[
            (KIB, 10 * KIB, 20 * KIB, 2 * MIB),
            (40 * KIB, 3 * MIB, 3 * MIB, 5 * MIB),
        ],
    );
    elf.resize(elf.len() + (2 << 20), 7);
    let ramdisk = pattern(3 * MIB + 1);
    for kernel in [elf, bzimage(4, 1 << 20)] {
        let image = assemble(&[
            (SectionKind::Kernel, &kernel),
            (SectionKind::Cmdline, b"quiet"),
            (SectionKind::Metadata, METADATA),
            (SectionKind::Ramdisk, &ramdisk),
            (SectionKind::Ramdisk, b"two"),
            (SectionKind::Signature, &signature("MAA=")),
        ]);
        let size = image.len() as u64;
        let file = Watched {
            image,
            reads: RefCell::default(),
        };

        load_all_of(&file, size).unwrap();

        let mut reads = file.reads.into_inner();
        reads.sort_unstable_by_key(|read| read.start);
        let mut end = 0;
        for read in reads {
            assert_eq!(read.start, end, "not read, or read again");
            end = read.end;
        }
        assert_eq!(end, size);
    }
}

#[test]
fn an_image_for_another_processor_is_refused_whatever_is_in_it() {
    let mut image = Cursor::new(Vec::new());
    let kernel = &mut Cursor::new(b"an arm64 Image");
    let builder = Builder::new(&mut image, Arch::Aarch64, kernel, b"quiet", &Metadata::default()).unwrap();
    builder.finish().unwrap();

    let error = load_image(&image.into_inner()).unwrap_err();

    assert!(
        matches!(
            error,
            LoadError::ForeignArchitecture {
                image: Arch::Aarch64,
                machine: Arch::X86_64
            }
        ),
        "{error}"
    );
}

#[test]
fn a_signed_image_has_its_signature_and_the_pcr8_of_its_certificate_and_another_has_none() {
    let kernel = bzimage(4, 1024);
    let unsigned = [
        (SectionKind::Kernel, &kernel[..]),
        (SectionKind::Cmdline, b"quiet"),
        (SectionKind::Metadata, METADATA),
    ];
    let signature = signature("MAMCAQc=");
    let signed = [&unsigned[..], &[(SectionKind::Signature, &signature[..])]].concat();

    let (loaded, pcr8) = load_image(&assemble(&signed)).unwrap().signature.unwrap();

    let certificate = [0x30, 3, 2, 1, 7];
    assert_eq!(pcr8, Pcr::of_data(&certificate));
    assert_eq!(loaded.certificate, certificate);
    assert_eq!(loaded.cose_sign1, b"");
    assert_eq!(load_image(&assemble(&unsigned)).unwrap().signature, None);
}

#[test]
fn sections_that_are_not_measured_are_refused_if_malformed_but_a_damaged_file_is_called_damaged() {
    let kernel = bzimage(4, 1024);
    let load = |metadata: &[u8], signature: &[u8], damage: u8| {
        let mut image = assemble(&[
            (SectionKind::Kernel, &kernel),
            (SectionKind::Cmdline, b"quiet"),
            (SectionKind::Metadata, metadata),
            (SectionKind::Signature, signature),
        ]);
        *image.last_mut().unwrap() ^= damage;
        match load_image(&image) {
            Err(LoadError::Eif(error)) => error,
            other => panic!("{other:?}"),
        }
    };

    let good = signature("MAA=");
    assert!(matches!(load(b"{}", &good, 0), EifError::Metadata { .. }));
    assert!(matches!(load(b"{}", &good, 1), EifError::CrcMismatch { .. }));
    for malformed in [&good[1..], b"", &signature("no certificate")] {
        assert!(matches!(load(METADATA, malformed, 0), EifError::Signature { .. }));
    }
    let EifError::Signature { source, .. } = load(METADATA, &signature("AAAA"), 0) else {
        panic!("another error")
    };
    assert!(matches!(source, SignatureError::Certificate(_)), "{source}");
}

const METADATA: &[u8] = br#"{"ImageName":"","ImageVersion":"","BuildMetadata":{"BuildTime":"","BuildTool":"",
    "BuildToolVersion":"","OperatingSystem":"","KernelVersion":""},"DockerInfo":null,"CustomMetadata":null}"#;

/// A signature section whose certificate has this base64 text, with an empty signature.
fn signature(base64: &str) -> Vec<u8> {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n");
    let text = |text: &str| [&[0x60 | u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let mut certificate = vec![0x98, u8::try_from(pem.len()).unwrap()];
    certificate.extend(pem.bytes().flat_map(|byte| [0x18, byte]));
    [
        &[0x81, 0xa2][..],
        &text("signing_certificate"),
        &certificate,
        &text("signature"),
        &[0x80],
    ]
    .concat()
}

/// A file of version 4 with these sections and the right CRC, whatever is in them.
fn assemble(sections: &[(SectionKind, &[u8])]) -> Vec<u8> {
    let mut header = [0; HEADER_LEN];
    header[..6].copy_from_slice(b".eif\0\x04");
    header[0x1a..0x1c].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_be_bytes());
    let mut body = Vec::new();
    for (index, (kind, data)) in sections.iter().enumerate() {
        let header_offset = (HEADER_LEN + body.len()) as u64;
        let section = Section {
            kind: *kind,
            offset: header_offset + 12,
            size: data.len() as u64,
        };
        header[0x1c + 8 * index..][..8].copy_from_slice(&header_offset.to_be_bytes());
        header[0x11c + 8 * index..][..8].copy_from_slice(&section.size.to_be_bytes());
        body.extend(section.header_bytes());
        body.extend_from_slice(data);
    }
    let mut crc = FileCrc::new(&header);
    crc.update(&body);
    header[0x220..].copy_from_slice(&crc.finish().to_be_bytes());
    [&header[..], &body].concat()
}

/// `image` loaded into 64 MiB, enough for a bzImage, which lies from 16 MiB on.
fn load_image(image: &[u8]) -> Result<Loaded, LoadError> {
    load_all_of(image, image.len() as u64)
}

fn load_all_of(file: &(impl ReadAt + ?Sized), size: u64) -> Result<Loaded, LoadError> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
    load_from(file, size, ExclusiveMemory::before_start(&memory), 64 * MIB)
}

/// A file that remembers what was read of it.
struct Watched {
    image: Vec<u8>,
    reads: RefCell<Vec<Range<u64>>>,
}

impl ReadAt for Watched {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let read = offset..offset + buf.len() as u64;
        self.reads.borrow_mut().push(read);
        self.image[..].read_exact_at(buf, offset)
    }
}
