//! Bad files: each is refused with an error that says what is wrong and where.

use std::error::Error;
use std::io;

use crate::by_hand::{self, CMDLINE, Eif, KERNEL, METADATA, METADATA_JSON, RAMDISK, SIGNATURE, SIGNER_PEM};
use eif::{EifError, ReadAt, SectionKind, SignatureError, inspect};

fn refused(bytes: &[u8]) -> EifError {
    inspect(bytes, bytes.len() as u64).unwrap_err()
}

/// Checks the offset and returns the error for a closer look.
fn refused_at(bytes: &[u8], offset: u64) -> EifError {
    let error = refused(bytes);
    assert_eq!(error.offset(), offset, "{error}");
    error
}

#[test]
fn what_is_no_eif() {
    for size in [0, 1, 4, 547] {
        let error = refused_at(&Eif::v4().bytes[..size], 0);
        assert!(
            matches!(error, EifError::TooShort { size: found } if found == size as u64),
            "{error}"
        );
    }
    let error = refused_at(&[b'x'; 1000], 0);
    assert!(
        matches!(error, EifError::BadMagic { found } if &found == b"xxxx"),
        "{error}"
    );
    assert!(error.to_string().contains("not an EIF"), "{error}");
}

#[test]
fn versions_that_were_never_released_or_are_not_known() {
    for version in [0_u16, 1, 5, 0x0400, u16::MAX] {
        let mut eif = Eif::v4();
        eif.set(4, &version.to_be_bytes());
        let error = refused_at(&eif.bytes, 4);
        assert!(
            matches!(error, EifError::UnsupportedVersion { found } if found == version),
            "{error}"
        );
    }
}

#[test]
fn reserved_flags() {
    for flags in [2_u16, 3, 0x8000] {
        let mut eif = Eif::v4();
        eif.set(6, &flags.to_be_bytes());
        let error = refused_at(&eif.bytes, 6);
        assert!(
            matches!(error, EifError::UnsupportedFlags { found } if found == flags),
            "{error}"
        );
    }
}

#[test]
fn section_counts_out_of_range() {
    for count in [0_u16, 1, 33, u16::MAX] {
        let mut eif = Eif::v4();
        eif.set(0x1a, &count.to_be_bytes());
        let error = refused_at(&eif.bytes, 0x1a);
        assert!(
            matches!(error, EifError::SectionCount { found } if found == count),
            "{error}"
        );
    }
}

#[test]
fn unknown_section_types() {
    for section_type in [0_u16, 6, 0x0100] {
        let mut eif = Eif::v4();
        eif.set(eif.offsets[3], &section_type.to_be_bytes());
        let error = refused_at(&eif.bytes, eif.offsets[3] as u64);
        let EifError::UnknownSectionType { index, found, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((index, found), (3, section_type));
    }
}

#[test]
fn section_flags() {
    let mut eif = Eif::v4();
    eif.set(eif.offsets[0] + 2, &[0x80, 0]);
    let error = refused_at(&eif.bytes, 550);
    assert!(
        matches!(
            error,
            EifError::UnsupportedSectionFlags {
                kind: SectionKind::Kernel,
                found: 0x8000,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn sizes_that_disagree() {
    for index in 0..5 {
        let mut eif = Eif::v4();
        let size_offset = eif.offsets[index] + 4;
        let true_size = u64::from_be_bytes(eif.bytes[size_offset..][..8].try_into().unwrap());
        eif.set_table(index, eif.offsets[index] as u64, true_size + 1);
        let error = refused_at(&eif.bytes, size_offset as u64);
        let EifError::SectionSizeMismatch {
            index: which,
            found,
            expected,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((which, found, expected), (index, true_size, true_size + 1));
    }
}

#[test]
fn a_signature_or_metadata_beyond_the_limit() {
    let large = vec![b' '; 32769];
    let eif = Eif::new(3, &[(KERNEL, b"K"), (CMDLINE, b"C"), (SIGNATURE, &large)]);
    let error = refused_at(&eif.bytes, eif.offsets[2] as u64 + 12);
    assert!(
        matches!(
            error,
            EifError::SectionTooLarge {
                kind: SectionKind::Signature,
                size: 32769,
                limit: 32768,
                ..
            }
        ),
        "{error}"
    );

    let large = vec![b' '; 1024 * 1024 + 1];
    let eif = Eif::new(4, &[(KERNEL, b"K"), (CMDLINE, b"C"), (METADATA, &large)]);
    let error = refused_at(&eif.bytes, eif.offsets[2] as u64 + 12);
    assert!(
        matches!(
            error,
            EifError::SectionTooLarge {
                kind: SectionKind::Metadata,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_cut_at_every_byte_names_what_is_cut() {
    let eif = Eif::signed(b"signature");
    let kinds = [
        "kernel",
        "command line",
        "metadata",
        "ramdisk",
        "ramdisk",
        "signature",
    ];
    for size in 548..eif.bytes.len() {
        let index = eif.offsets.iter().rposition(|offset| *offset <= size).unwrap();
        let start = eif.offsets[index];

        let error = refused(&eif.bytes[..size]);

        let text = error.to_string();
        if size < start + 12 {
            let EifError::SectionHeaderCutOff { index: found, .. } = error else {
                panic!("{size}: {error}")
            };
            assert_eq!(found, index);
            assert_eq!(error.offset(), start as u64);
        } else {
            let EifError::SectionCutOff { index: found, .. } = error else {
                panic!("{size}: {error}")
            };
            assert_eq!(found, index);
            assert_eq!(error.offset(), start as u64 + 12);
            assert!(text.contains(kinds[index]), "{text}");
        }
        assert!(text.contains(&format!("section {index}")), "{text}");
        assert!(text.contains(&format!("the file has {size:#x} bytes")), "{text}");
    }
}

#[test]
fn sizes_and_offsets_at_the_end_of_the_number_range() {
    let mut eif = Eif::v4();
    let start = eif.offsets[4];
    for size in [u64::MAX, u64::MAX - 1, u64::MAX - start as u64 - 12, 1 << 63] {
        eif.set(start + 4, &size.to_be_bytes());
        eif.set_table(4, start as u64, size);
        let error = refused_at(&eif.bytes, start as u64 + 12);
        assert!(
            matches!(error, EifError::SectionCutOff { size: found, .. } if found == size),
            "{error}"
        );
    }
    for offset in [u64::MAX, u64::MAX - 11, 1 << 63] {
        eif.set_table(4, offset, 2);
        let error = refused_at(&eif.bytes, offset);
        assert!(matches!(error, EifError::SectionHeaderCutOff { .. }), "{error}");
    }
}

#[test]
fn sections_over_each_other_or_over_the_header() {
    for (offset, previous_end) in [(0, 548), (1, 548), (547, 548), (548, 561), (560, 561)] {
        let mut eif = Eif::v4();
        eif.set_table(1, offset, 1);
        let error = refused_at(&eif.bytes, offset);
        let EifError::SectionOverlap {
            previous_end: found, ..
        } = error
        else {
            panic!("{offset}: {error}")
        };
        assert_eq!(found, previous_end);
    }
}

#[test]
fn bytes_that_belong_to_no_section() {
    let mut eif = Eif::v4();
    let at = eif.offsets[3];
    eif.bytes.splice(at..at, [0; 4]);
    eif.set_table(3, at as u64 + 4, 2);
    eif.set_table(4, at as u64 + 4 + 14, 2);
    eif.fix_crc();

    let error = refused_at(&eif.bytes, at as u64 + 4);

    let EifError::SectionGap {
        index: 3,
        previous_end,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(previous_end, at as u64);
}

#[test]
fn second_sections_of_a_kind_that_occurs_once() {
    let signature = by_hand::signature_section(SIGNER_PEM, b"");
    let metadata = METADATA_JSON.as_bytes();
    let good: [(u16, &[u8]); 4] = [
        (KERNEL, b"K"),
        (CMDLINE, b"C"),
        (METADATA, metadata),
        (SIGNATURE, &signature),
    ];
    let kinds = [
        SectionKind::Kernel,
        SectionKind::Cmdline,
        SectionKind::Metadata,
        SectionKind::Signature,
    ];
    for (again, kind) in good.iter().zip(kinds) {
        let sections: Vec<_> = good.iter().chain([again]).copied().collect();
        let eif = Eif::new(4, &sections);
        let error = refused_at(&eif.bytes, eif.offsets[4] as u64 + 12);
        assert!(
            matches!(error, EifError::DuplicateSection { kind: found, .. } if found == kind),
            "{error}"
        );
    }
}

#[test]
fn sections_newer_than_the_version() {
    for (version, section, kind) in [
        (2, SIGNATURE, SectionKind::Signature),
        (2, METADATA, SectionKind::Metadata),
        (3, METADATA, SectionKind::Metadata),
    ] {
        let eif = Eif::new(version, &[(KERNEL, b"K"), (CMDLINE, b"C"), (section, b"{}")]);
        let error = refused_at(&eif.bytes, eif.offsets[2] as u64 + 12);
        let EifError::SectionNotInVersion {
            kind: found,
            version: of,
            ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((found, of), (kind, version));
    }
}

#[test]
fn a_ramdisk_before_the_kernel() {
    let eif = Eif::new(2, &[(CMDLINE, b"C"), (RAMDISK, b"R"), (KERNEL, b"K")]);
    let error = refused_at(&eif.bytes, eif.offsets[1] as u64 + 12);
    assert!(
        matches!(error, EifError::RamdiskBeforeKernel { kernel, .. } if kernel == eif.offsets[2] as u64 + 12),
        "{error}"
    );
}

#[test]
fn sections_that_there_must_be() {
    let metadata = METADATA_JSON.as_bytes();
    let sections: [(u16, &[u8]); 3] = [(KERNEL, b"K"), (CMDLINE, b"C"), (METADATA, metadata)];
    for (missing, kind) in [SectionKind::Kernel, SectionKind::Cmdline, SectionKind::Metadata]
        .into_iter()
        .enumerate()
    {
        let mut present = sections.to_vec();
        present.remove(missing);
        let error = refused_at(&Eif::new(4, &present).bytes, 0x1a);
        assert!(
            matches!(error, EifError::MissingSection { kind: found } if found == kind),
            "{error}"
        );
    }
}

#[test]
fn metadata_that_is_not_what_version_4_asks_for() {
    for json in ["", "{", "[]", r#"{"ImageName":"hello"}"#, "\u{0}"] {
        let eif = Eif::new(4, &[(KERNEL, b"K"), (CMDLINE, b"C"), (METADATA, json.as_bytes())]);
        let error = refused_at(&eif.bytes, eif.offsets[2] as u64 + 12);
        assert!(matches!(error, EifError::Metadata { .. }), "{error}");
        assert!(error.source().is_some());
    }
}

fn signature_refused(data: &[u8]) -> (u64, SignatureError) {
    let eif = Eif::new(3, &[(KERNEL, b"K"), (CMDLINE, b"C"), (SIGNATURE, data)]);
    match refused(&eif.bytes) {
        EifError::Signature { offset, source } => (offset - (eif.offsets[2] as u64 + 12), source),
        error => panic!("{error}"),
    }
}

#[test]
fn signature_sections_that_are_not_the_expected_cbor() {
    let good = by_hand::signature_section(SIGNER_PEM, b"cose");
    for size in 0..good.len() {
        let (at, error) = signature_refused(&good[..size]);
        assert!(matches!(error, SignatureError::Cbor { .. }), "{size}: {error}");
        assert!(at <= size as u64, "{at} > {size}");
    }

    let mut with_tail = good.clone();
    with_tail.push(0);
    let (at, error) = signature_refused(&with_tail);
    assert!(matches!(error, SignatureError::TrailingBytes { .. }), "{error}");
    assert_eq!(at, good.len() as u64);

    // A list of nothing; a number; bytes where there should be an array; a byte of 256; a list claiming 2^64 - 1 entries.
    assert!(matches!(signature_refused(&[0x80]), (0, SignatureError::Empty)));
    assert!(matches!(
        signature_refused(&[0x07]),
        (0, SignatureError::Cbor { .. })
    ));
    let entry = |value: &[u8]| [b"\x81\xa1\x69signature".as_slice(), value].concat();
    assert!(matches!(
        signature_refused(&entry(&[0x41, 0])),
        (12, SignatureError::Cbor { .. })
    ));
    assert!(matches!(
        signature_refused(&entry(&[0x81, 0x19, 1, 0])),
        (13, SignatureError::Cbor { .. })
    ));
    let endless = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(matches!(
        signature_refused(&endless),
        (9, SignatureError::Cbor { .. })
    ));
    assert!(matches!(
        signature_refused(&entry(&endless)),
        (21, SignatureError::Cbor { .. })
    ));
}

#[test]
fn signature_entries_without_a_key_or_with_one_twice() {
    let (at, error) = signature_refused(b"\x81\xa1\x69signature\x80");
    assert!(
        matches!(
            error,
            SignatureError::MissingKey {
                key: "signing_certificate",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(at, 13);

    let (_, error) = signature_refused(b"\x81\xa1\x73signing_certificate\x80");
    assert!(
        matches!(error, SignatureError::MissingKey { key: "signature", .. }),
        "{error}"
    );

    let (at, error) = signature_refused(b"\x81\xa2\x69signature\x80\x69signature\x80");
    assert!(
        matches!(error, SignatureError::DuplicateKey { key: "signature", .. }),
        "{error}"
    );
    assert_eq!(at, 13);
}

#[test]
fn signature_sections_with_a_certificate_that_is_none() {
    for certificate in [
        "",
        "MAA=",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
    ] {
        let (at, error) = signature_refused(&by_hand::signature_section(certificate.as_bytes(), b"cose"));
        assert!(matches!(error, SignatureError::Certificate(_)), "{error}");
        assert_eq!(at, 0);
    }
}

/// Fails where a section's data begins, as a bad disk or a file that shrinks does.
struct FailsAt<'a>(&'a [u8], u64);

impl ReadAt for FailsAt<'_> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset == self.1 {
            Err(io::Error::other("bad block"))
        } else {
            self.0.read_exact_at(buf, offset)
        }
    }
}

#[test]
fn reads_that_fail_say_where() {
    let eif = Eif::v4();
    let size = eif.bytes.len() as u64;
    for offset in [0, 548, 560, eif.offsets[4] as u64 + 12] {
        let error = inspect(&FailsAt(&eif.bytes, offset), size).unwrap_err();
        assert!(matches!(error, EifError::Read { .. }), "{error}");
        assert_eq!(error.offset(), offset);
        assert_eq!(error.source().unwrap().to_string(), "bad block");
    }
}

#[test]
fn a_file_shorter_than_was_said_is_a_failed_read() {
    let eif = Eif::v4();
    for size in [548, eif.offsets[4] + 3, eif.bytes.len() - 1] {
        let error = inspect(&eif.bytes[..size], eif.bytes.len() as u64).unwrap_err();
        let EifError::Read { source, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof);
    }
}
