//! Enclave images.

use std::io::Cursor;

use eif::{Builder, FileCrc, Layout, Section, WriteError, inspect};

/// Where the CRC is in the file.
const CRC: std::ops::Range<usize> = 0x220..0x224;

/// Sections lie one after the other inside the file. An image that is read can be copied once its CRC is right, and the copy
/// has the same measurements.
pub(crate) fn check(input: &[u8]) {
    let size = input.len() as u64;
    let Ok(layout) = Layout::read(input, size) else {
        return;
    };
    let mut end = 548;
    for section in &layout.sections {
        assert_eq!(section.header_offset(), end);
        end = section.end();
    }
    assert_eq!(end + layout.trailing_bytes(), size);
    let Ok(original) = inspect(input, size) else {
        return;
    };
    let mut whole = input.to_vec();
    whole[CRC].copy_from_slice(&crc(input, &layout).to_be_bytes());
    assert!(inspect(&whole[..], size).is_ok_and(|inspection| inspection.crc_ok));

    let mut out = Cursor::new(Vec::new());
    let mut builder = Builder::unsigned_copy(&whole[..], size, &mut out).expect("a whole image");
    if let Some(signature) = &original.signature {
        match builder.add_signature(signature) {
            // Encoded anew, it may be longer.
            Ok(()) | Err(WriteError::SignatureTooLarge { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let measurements = builder.finish().expect("a vector");
    assert_eq!(measurements, original.measurements);
    let copy = out.into_inner();
    let copied = inspect(&copy[..], copy.len() as u64).expect("an image");
    assert!(copied.crc_ok);
    assert_eq!(copied.measurements, original.measurements);
    assert_eq!(copied.metadata, original.metadata);
}

fn crc(file: &[u8], layout: &Layout) -> u32 {
    let mut crc = FileCrc::new(layout.header.as_bytes());
    for section in &layout.sections {
        crc.update(&section.header_bytes());
        crc.update(content(file, section).unwrap_or_default());
    }
    crc.finish()
}

fn content<'a>(file: &'a [u8], section: &Section) -> Option<&'a [u8]> {
    file.get(usize::try_from(section.offset).ok()?..usize::try_from(section.end()).ok()?)
}
