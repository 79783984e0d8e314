//! What holds for every file: what is built is read back, and nothing that is read makes the reader panic.

use std::io::Cursor;

use crate::by_hand::{self, CMDLINE, Eif, KERNEL, RAMDISK};
use eif::{
    Arch, BuildMetadata, Builder, EifError, Layout, Metadata, Pcr, Section, SectionKind, SignatureSection,
    inspect, pem,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn metadata() -> impl Strategy<Value = Metadata> {
    let custom =
        proptest::option::of((".{0,20}", any::<u32>()).prop_map(|(key, n)| serde_json::json!({ key: n })));
    (
        [
            ".{0,20}", ".{0,20}", ".{0,20}", ".{0,20}", ".{0,20}", ".{0,20}", ".{0,20}",
        ],
        custom,
    )
        .prop_map(
            |(
                [
                    name,
                    version,
                    build_time,
                    build_tool,
                    build_tool_version,
                    operating_system,
                    kernel_version,
                ],
                custom,
            )| {
                Metadata {
                    image_name: name,
                    image_version: version,
                    build_metadata: BuildMetadata {
                        build_time,
                        build_tool,
                        build_tool_version,
                        operating_system,
                        kernel_version,
                    },
                    docker_info: None,
                    custom_metadata: custom,
                }
            },
        )
}

fn data(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..limit)
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(
        kernel in data(3000),
        cmdline in data(100),
        metadata in metadata(),
        ramdisks in vec(data(3000), 0..5),
        arm in any::<bool>(),
    ) {
        let arch = if arm { Arch::Aarch64 } else { Arch::X86_64 };
        let mut out = Cursor::new(Vec::new());
        let mut builder = Builder::new(&mut out, arch, &mut &kernel[..], &cmdline, &metadata).unwrap();
        for ramdisk in &ramdisks {
            builder.add_ramdisk(&mut &ramdisk[..]).unwrap();
        }
        let measurements = builder.finish().unwrap();
        let bytes = out.into_inner();

        let inspection = inspect(&bytes[..], bytes.len() as u64).unwrap();

        let layout = &inspection.layout;
        let content = |section: &Section| {
            bytes[usize::try_from(section.offset).unwrap()..usize::try_from(section.end()).unwrap()].to_vec()
        };
        prop_assert!(inspection.crc_ok);
        prop_assert_eq!(layout.header.arch, arch);
        prop_assert_eq!(layout.header.version, 4);
        prop_assert_eq!(layout.trailing_bytes(), 0);
        prop_assert_eq!(inspection.metadata.as_ref(), Some(&metadata));
        prop_assert_eq!(inspection.measurements, measurements);
        let boot = [&kernel[..], &cmdline].concat();
        let first = ramdisks.first().map_or(&[][..], |first| &first[..]);
        prop_assert_eq!(measurements.pcr0, Pcr::of_data(&[&boot[..], &ramdisks.concat()].concat()));
        prop_assert_eq!(measurements.pcr1, Pcr::of_data(&[&boot[..], first].concat()));
        prop_assert_eq!(measurements.pcr2, Pcr::of_data(&ramdisks.iter().skip(1).flatten().copied().collect::<Vec<_>>()));
        prop_assert_eq!(content(layout.kernel()), kernel);
        prop_assert_eq!(content(layout.cmdline()), cmdline);
        prop_assert_eq!(layout.ramdisks().map(content).collect::<Vec<_>>(), ramdisks);
    }

    #[test]
    fn a_cut_anywhere_is_an_error_inside_the_uncut_file(ramdisk in data(200), cut in any::<prop::sample::Index>()) {
        let eif = Eif::new(2, &[(KERNEL, b"kernel"), (CMDLINE, b"cmdline"), (RAMDISK, &ramdisk)]);
        let size = cut.index(eif.bytes.len());

        let error = inspect(&eif.bytes[..size], size as u64).unwrap_err();

        prop_assert!(error.offset() <= eif.bytes.len() as u64);
        let cut_off = matches!(
            error,
            EifError::TooShort { .. } | EifError::SectionHeaderCutOff { .. } | EifError::SectionCutOff { .. }
        );
        prop_assert!(cut_off, "{}", error);
    }

    #[test]
    fn any_flipped_byte_outside_the_crc_changes_the_crc_or_is_an_error(
        at in any::<prop::sample::Index>(),
        flip in 1..=u8::MAX,
    ) {
        let mut eif = Eif::signed(b"cose");
        let at = at.index(eif.bytes.len());
        eif.bytes[at] ^= flip;

        if let Ok(inspection) = inspect(&eif.bytes[..], eif.bytes.len() as u64) {
            prop_assert!(!inspection.crc_ok);
        }
    }

    #[test]
    fn any_header_is_accepted_or_refused_with_sections_inside_the_file(
        changes in vec((0..660_usize, any::<u8>()), 1..20),
    ) {
        let mut eif = Eif::signed(b"cose");
        for (at, value) in changes {
            eif.bytes[at] = value;
        }
        let size = eif.bytes.len() as u64;

        if let Ok(layout) = Layout::read(&eif.bytes[..], size) {
            let mut end = 548;
            for section in &layout.sections {
                prop_assert_eq!(section.header_offset(), end);
                end = section.end();
            }
            prop_assert_eq!(end + layout.trailing_bytes(), size);
        }
    }

    #[test]
    fn any_section_table_is_accepted_or_refused(
        version in 2..=4_u16,
        kinds in vec((0..7_u16, data(20)), 2..8),
        table in vec((0..8_usize, 0..800_u64, 0..40_u64), 0..3),
    ) {
        let sections: Vec<_> = kinds.iter().map(|(kind, data)| (*kind, &data[..])).collect();
        let mut eif = Eif::new(version, &sections);
        for (index, offset, size) in table {
            eif.set_table(index, offset, size);
        }

        if let Ok(layout) = Layout::read(&eif.bytes[..], eif.bytes.len() as u64) {
            prop_assert_eq!(layout.kernel().kind, SectionKind::Kernel);
            prop_assert_eq!(layout.cmdline().kind, SectionKind::Cmdline);
            prop_assert_eq!(layout.metadata().is_some(), version == 4);
        }
    }

    #[test]
    fn any_bytes_after_a_magic_are_accepted_or_refused(mut bytes in data(2000)) {
        if let Some(magic) = bytes.get_mut(..8) {
            magic.copy_from_slice(b".eif\0\x04\0\0");
        }
        if let Err(error) = inspect(&bytes[..], bytes.len() as u64) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_bytes_are_no_reason_to_panic(bytes in data(300)) {
        let section = Section { kind: SectionKind::Signature, offset: u64::MAX, size: 0 };
        let _ = SignatureSection::parse(&section, &bytes);
        let _ = Metadata::parse(&section, &bytes);
        let _ = pem::certificate_der(&bytes);
        let _ = pem::certificate_der(&[b"-----BEGIN CERTIFICATE-----", &bytes[..], b"-----END CERTIFICATE-----"].concat());
        let _ = Pcr::from_hex(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_signature_section_is_read_whatever_it_holds_and_any_change_is_accepted_or_refused(
        certificate in data(300),
        cose in data(300),
        change in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let section = Section { kind: SectionKind::Signature, offset: 600, size: 0 };
        let mut bytes = by_hand::signature_section(&certificate, &cose);

        let signature = SignatureSection::parse(&section, &bytes).unwrap();
        prop_assert_eq!(&signature.certificate_pem, &certificate);
        prop_assert_eq!(&signature.cose_sign1, &cose);

        let at = change.0.index(bytes.len());
        bytes[at] = change.1;
        match SignatureSection::parse(&section, &bytes) {
            Ok(changed) => prop_assert!(changed.certificate_pem.len() + changed.cose_sign1.len() <= bytes.len()),
            Err(error) => prop_assert!((600..=600 + bytes.len() as u64).contains(&error.offset())),
        }
    }
}
