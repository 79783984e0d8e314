//! Good files: what is read from them.

use std::cell::RefCell;
use std::io;

use crate::by_hand::{
    self, CMDLINE, Eif, KERNEL, METADATA, METADATA_JSON, RAMDISK, SIGNATURE, SIGNER_PCR8, SIGNER_PEM,
};
use eif::{
    Arch, EifError, FileCrc, Layout, Measurer, Metadata, Pcr, ReadAt, Section, SectionKind, SignatureSection,
    inspect,
};

const PCR0: &str =
    "89427b25b8c6dc97577cb4257cb4bfab42a869f0f9ba8fe683690f616715797ead72673c1918835d1615216fb5c8769e";
const PCR1: &str =
    "5cfb73228c84599832f72e7c7df5191467530cec6c016cea4c9cd0b20141b4b47a476341036a7373ea241aa9d4156a41";
const PCR2: &str =
    "e52b3d6d3661ed6edeafaa4d330cfb9fb9f237304191a23edca8a97fb126043594cb522cb845379441668c8cc1c8adc5";

/// Remembers what was read.
struct Watched<'a> {
    bytes: &'a [u8],
    reads: RefCell<Vec<(u64, usize)>>,
}

impl ReadAt for Watched<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.borrow_mut().push((offset, buf.len()));
        self.bytes.read_exact_at(buf, offset)
    }
}

fn inspected(eif: &Eif) -> eif::Inspection {
    inspect(&eif.bytes[..], eif.bytes.len() as u64).unwrap()
}

#[test]
fn a_version_4_file_gives_the_known_answers() {
    let eif = Eif::v4();

    let inspection = inspected(&eif);

    assert_eq!(inspection.measurements.pcr0.to_string(), PCR0);
    assert_eq!(inspection.measurements.pcr1.to_string(), PCR1);
    assert_eq!(inspection.measurements.pcr2.to_string(), PCR2);
    assert!(inspection.crc_ok);
    assert_eq!(inspection.crc_computed, inspection.layout.header.crc32);
    let metadata = inspection.metadata.unwrap();
    assert_eq!(metadata.image_name, "hello");
    assert_eq!(serde_json::to_string(&metadata).unwrap(), METADATA_JSON);
    assert_eq!((inspection.signature, inspection.pcr8), (None, None));
}

#[test]
fn the_layout_says_where_everything_is() {
    let eif = Eif::v4();

    let layout = Layout::read(&eif.bytes[..], eif.bytes.len() as u64).unwrap();

    assert_eq!(layout.header.version, 4);
    assert_eq!(layout.header.arch, Arch::X86_64);
    assert_eq!(layout.header.default_mem, 1 << 30);
    assert_eq!(layout.header.default_cpus, 2);
    assert_eq!(layout.header.num_sections, 5);
    assert_eq!(layout.file_size, eif.bytes.len() as u64);
    assert_eq!(layout.trailing_bytes(), 0);
    let data = |section: &Section| {
        let start = usize::try_from(section.offset).unwrap();
        &eif.bytes[start..][..usize::try_from(section.size).unwrap()]
    };
    assert_eq!(data(layout.kernel()), b"K");
    assert_eq!(data(layout.cmdline()), b"C");
    assert_eq!(data(layout.metadata().unwrap()), METADATA_JSON.as_bytes());
    assert_eq!(layout.ramdisks().map(data).collect::<Vec<_>>(), [b"R1", b"R2"]);
    assert_eq!(layout.signature(), None);
    for (section, offset) in layout.sections.iter().zip(&eif.offsets) {
        assert_eq!(section.header_offset(), *offset as u64);
        assert_eq!(section.header_bytes(), eif.bytes[*offset..offset + 12]);
    }
}

#[test]
fn a_loader_that_streams_in_odd_pieces_gets_the_measurements_and_the_crc() {
    let eif = Eif::signed(b"any");
    let layout = Layout::read(&eif.bytes[..], eif.bytes.len() as u64).unwrap();
    let mut measurer = Measurer::new();
    let mut crc = FileCrc::new(layout.header.as_bytes());

    for section in &layout.sections {
        measurer.begin(section.kind);
        crc.update(&section.header_bytes());
        let start = usize::try_from(section.offset).unwrap();
        for piece in eif.bytes[start..][..usize::try_from(section.size).unwrap()].chunks(3) {
            measurer.update(piece);
            crc.update(piece);
        }
    }

    assert_eq!(measurer.finish().pcr0.to_string(), PCR0);
    layout.check_crc(crc).unwrap();
}

#[test]
fn versions_2_and_3_need_no_metadata() {
    for version in [2, 3] {
        let eif = Eif::new(
            version,
            &[
                (KERNEL, b"K"),
                (CMDLINE, b"C"),
                (RAMDISK, b"R1"),
                (RAMDISK, b"R2"),
            ],
        );

        let inspection = inspected(&eif);

        assert_eq!(inspection.layout.header.version, version);
        assert_eq!(inspection.measurements.pcr0.to_string(), PCR0);
        assert_eq!(inspection.metadata, None);
        assert!(inspection.crc_ok);
    }
}

#[test]
fn a_kernel_and_a_command_line_are_enough() {
    let inspection = inspected(&Eif::new(2, &[(CMDLINE, b"C"), (KERNEL, b"K")]));

    assert_eq!(inspection.measurements.pcr0, Pcr::of_data(b"CK"));
    assert_eq!(inspection.measurements.pcr1, inspection.measurements.pcr0);
    assert_eq!(inspection.measurements.pcr2, Pcr::of_data(b""));
    assert_eq!(inspection.layout.ramdisks().count(), 0);
}

#[test]
fn an_image_for_arm_says_so() {
    let mut eif = Eif::v4();
    eif.set(6, &[0, 1]);
    eif.fix_crc();

    assert_eq!(inspected(&eif).layout.header.arch, Arch::Aarch64);
    assert_eq!(Arch::Aarch64.to_string(), "aarch64");
    assert_eq!(Arch::X86_64.to_string(), "x86_64");
}

#[test]
fn a_signed_file_has_its_certificate_signature_and_pcr8() {
    let inspection = inspected(&Eif::signed(&[0xd2, 0x84, 0xff, 0x00, 0x17, 0x18]));

    let signature = inspection.signature.unwrap();
    assert_eq!(signature.certificate_pem, SIGNER_PEM);
    assert_eq!(signature.cose_sign1, [0xd2, 0x84, 0xff, 0x00, 0x17, 0x18]);
    assert_eq!(inspection.pcr8.unwrap().to_string(), SIGNER_PCR8);
    assert_eq!(inspection.measurements.pcr0.to_string(), PCR0);
    assert!(inspection.crc_ok);
}

#[test]
fn a_version_3_file_may_be_signed() {
    let signature = by_hand::signature_section(SIGNER_PEM, b"");
    let eif = Eif::new(3, &[(KERNEL, b"K"), (CMDLINE, b"C"), (SIGNATURE, &signature)]);

    assert_eq!(inspected(&eif).pcr8.unwrap().to_string(), SIGNER_PCR8);
}

#[test]
fn the_size_of_a_signature_is_taken_from_its_section_header() {
    let mut eif = Eif::signed(b"signed again, with a longer signature");
    let true_size = inspected(&eif).layout.signature().unwrap().size;
    for stale in [0, true_size - 1, true_size + 100, u64::MAX] {
        eif.set_table(5, eif.offsets[5] as u64, stale);
        eif.fix_crc();

        let inspection = inspected(&eif);

        assert_eq!(inspection.layout.signature().unwrap().size, true_size);
        assert!(inspection.crc_ok);
    }
}

#[test]
fn a_signature_may_stand_before_the_ramdisks() {
    let signature = by_hand::signature_section(SIGNER_PEM, b"");
    let metadata = METADATA_JSON.as_bytes();
    let mut eif = Eif::new(
        4,
        &[
            (KERNEL, b"K"),
            (CMDLINE, b"C"),
            (METADATA, metadata),
            (SIGNATURE, &signature),
            (RAMDISK, b"R1"),
        ],
    );
    eif.set_table(3, eif.offsets[3] as u64, 7);
    eif.fix_crc();

    let inspection = inspected(&eif);

    assert_eq!(inspection.measurements.pcr0, Pcr::of_data(b"KCR1"));
    assert!(inspection.crc_ok);
}

#[test]
fn the_table_need_not_be_in_file_order() {
    let mut eif = Eif::v4();
    eif.set_table(3, eif.offsets[4] as u64, 2);
    eif.set_table(4, eif.offsets[3] as u64, 2);
    eif.fix_crc();

    let inspection = inspected(&eif);

    assert_eq!(inspection.measurements.pcr0.to_string(), PCR0);
    assert!(
        inspection
            .layout
            .sections
            .is_sorted_by_key(|section| section.offset)
    );
    assert!(inspection.crc_ok);
}

#[test]
fn unused_header_bytes_are_let_be_but_are_in_the_crc() {
    let mut eif = Eif::v4();
    eif.set(0x18, &[1, 2]);
    eif.set(0x21c, &[1, 2, 3, 4]);
    eif.set_table(31, 77, 88);
    assert!(!inspected(&eif).crc_ok);

    eif.fix_crc();
    assert!(inspected(&eif).crc_ok);
}

#[test]
fn trailing_bytes_are_counted_and_are_not_in_the_crc() {
    let mut eif = Eif::v4();
    eif.bytes.extend([0xaa; 2]);

    let inspection = inspected(&eif);

    assert!(inspection.crc_ok);
    assert_eq!(inspection.layout.trailing_bytes(), 2);
    assert_eq!(inspection.measurements.pcr0.to_string(), PCR0);
}

#[test]
fn a_wrong_crc_is_said_by_inspect_and_refused_by_check_crc() {
    let mut eif = Eif::v4();
    eif.set(0x220, &[0, 0, 0, 1]);

    let inspection = inspected(&eif);

    assert!(!inspection.crc_ok);
    let layout = inspection.layout;
    let mut crc = FileCrc::new(layout.header.as_bytes());
    crc.update(&eif.bytes[548..]);
    let error = layout.check_crc(crc).unwrap_err();
    assert_eq!(error.offset(), 0x220);
    let EifError::CrcMismatch { stored, computed } = error else {
        panic!("{error}")
    };
    assert_eq!((stored, computed), (1, inspection.crc_computed));
}

#[test]
fn the_layout_costs_one_small_read_for_the_header_and_one_for_each_section() {
    let eif = Eif::signed(b"s");
    let watched = Watched {
        bytes: &eif.bytes,
        reads: RefCell::default(),
    };

    Layout::read(&watched, eif.bytes.len() as u64).unwrap();

    let mut expected = vec![(0, 548)];
    expected.extend(eif.offsets.iter().map(|offset| (*offset as u64, 12)));
    assert_eq!(*watched.reads.borrow(), expected);
}

#[test]
fn inspecting_reads_each_byte_of_data_once_in_bounded_pieces() {
    let kernel = vec![7; 300_000];
    let eif = Eif::new(2, &[(KERNEL, &kernel), (CMDLINE, b"C"), (RAMDISK, &kernel)]);
    let watched = Watched {
        bytes: &eif.bytes,
        reads: RefCell::default(),
    };

    inspect(&watched, eif.bytes.len() as u64).unwrap();

    let reads = watched.reads.into_inner();
    assert!(reads.iter().all(|(_, length)| *length <= 256 * 1024), "{reads:?}");
    let read: usize = reads.iter().map(|(_, length)| length).sum();
    assert_eq!(read, eif.bytes.len());
}

#[test]
fn a_file_on_disk_is_read_without_moving_its_cursor() {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    let eif = Eif::v4();
    file.write_all(&eif.bytes).unwrap();
    file.seek(io::SeekFrom::Start(5)).unwrap();

    let inspection = inspect(&file, eif.bytes.len() as u64).unwrap();

    assert_eq!(inspection, inspected(&eif));
    assert_eq!(file.stream_position().unwrap(), 5);
}

#[test]
fn metadata_and_signature_can_be_parsed_apart_from_a_file() {
    let section = Section {
        kind: SectionKind::Metadata,
        offset: 1000,
        size: 0,
    };

    assert_eq!(
        Metadata::parse(&section, METADATA_JSON.as_bytes())
            .unwrap()
            .image_version,
        "1.0"
    );
}

#[test]
fn keys_of_a_signature_in_another_order_unknown_keys_and_indefinite_lengths_are_read() {
    let section = Section {
        kind: SectionKind::Signature,
        offset: 0,
        size: 0,
    };
    let other_order = [
        &b"\x82\xa3\x69signature\x82\x01\x18\xff\x65other\x82\xa1\x01\x02\x03\x73signing_certificate\x81\x17"
            [..],
        &b"\xa2\x69signature\x80\x73signing_certificate\x80"[..],
    ]
    .concat();
    let indefinite = b"\x9f\xbf\x69signature\x9f\x01\x19\x00\xff\xff\x73signing_certificate\x81\x17\xff\xff";

    for bytes in [&other_order[..], indefinite] {
        let signature = SignatureSection::parse(&section, bytes).unwrap();
        assert_eq!(signature.cose_sign1, [1, 255]);
        assert_eq!(signature.certificate_pem, [23]);
    }
}
