//! Small enclave images to describe, good and bad.

use std::io::Cursor;

use eif::{Arch, BuildMetadata, Builder, Metadata, Pcr, inspect};
use serde_json::Value;

/// Where the fields that are changed here are in an EIF's header, from the file's start.
const SECTION_COUNT: usize = 0x1a;
const OFFSETS: usize = 0x1c;
const SIZES: usize = 0x11c;
const CRC: usize = 0x220;

pub(crate) fn metadata(custom: Option<Value>) -> Metadata {
    Metadata {
        image_name: "hello".into(),
        image_version: "1.0".into(),
        build_metadata: BuildMetadata {
            build_time: "2024-01-01T00:00:00+00:00".into(),
            build_tool: "nitro-cli".into(),
            build_tool_version: "1.5.0".into(),
            operating_system: "Linux".into(),
            kernel_version: "6.12.0".into(),
        },
        docker_info: None,
        custom_metadata: custom,
    }
}

/// Kernel `K`, command line `C`, ramdisks `R1` and `R2`: the measurements of these are known.
pub(crate) fn unsigned(custom: Option<Value>) -> Vec<u8> {
    with_metadata(&metadata(custom))
}

/// [`unsigned`] with this metadata.
pub(crate) fn with_metadata(metadata: &Metadata) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let mut builder = Builder::new(&mut file, Arch::X86_64, &mut &b"K"[..], b"C", metadata).unwrap();
    builder.add_ramdisk(&mut &b"R1"[..]).unwrap();
    builder.add_ramdisk(&mut &b"R2"[..]).unwrap();
    builder.finish().unwrap();
    file.into_inner()
}

/// [`unsigned`] with a signature section that no one would verify, and its PCR8.
pub(crate) fn signed() -> (Vec<u8>, Pcr) {
    let mut file = unsigned(None);
    let pem = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let mut section = vec![0x81, 0xa2];
    push_text(&mut section, "signing_certificate");
    push_bytes(&mut section, pem);
    push_text(&mut section, "signature");
    push_bytes(&mut section, b"cose");

    let entry = usize::from(file[SECTION_COUNT + 1]);
    file[SECTION_COUNT + 1] += 1;
    let offset = file.len() as u64;
    file[OFFSETS + 8 * entry..][..8].copy_from_slice(&offset.to_be_bytes());
    file[SIZES + 8 * entry..][..8].copy_from_slice(&(section.len() as u64).to_be_bytes());
    file.extend([0, 4, 0, 0]);
    file.extend((section.len() as u64).to_be_bytes());
    file.extend(section);
    set_crc(&mut file);
    (file, Pcr::of_data(&[0x30, 0x00]))
}

/// Version 2: kernel, command line and ramdisks, no metadata.
pub(crate) fn version_2() -> Vec<u8> {
    let sections: [(u8, &[u8]); 4] = [(1, b"K"), (2, b"C"), (3, b"R1"), (3, b"R2")];
    let mut file = vec![0; CRC + 4];
    file[..6].copy_from_slice(b".eif\x00\x02");
    file[SECTION_COUNT + 1] = 4;
    for (entry, (kind, data)) in sections.into_iter().enumerate() {
        let (offset, size) = (file.len() as u64, data.len() as u64);
        file[OFFSETS + 8 * entry..][..8].copy_from_slice(&offset.to_be_bytes());
        file[SIZES + 8 * entry..][..8].copy_from_slice(&size.to_be_bytes());
        file.extend([0, kind, 0, 0]);
        file.extend(size.to_be_bytes());
        file.extend(data);
    }
    set_crc(&mut file);
    file
}

/// `file` with the one occurrence of `old` overwritten by `new`, which is as long.
pub(crate) fn replace(file: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = file.windows(old.len()).position(|window| window == old).unwrap();
    let mut changed = file.to_vec();
    changed[at..at + new.len()].copy_from_slice(new);
    changed
}

fn set_crc(file: &mut [u8]) {
    let crc = inspect(&*file, file.len() as u64).unwrap().crc_computed;
    file[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
}

/// CBOR text of up to 23 bytes.
fn push_text(cbor: &mut Vec<u8>, text: &str) {
    cbor.push(0x60 + u8::try_from(text.len()).unwrap());
    cbor.extend(text.as_bytes());
}

/// A CBOR array of up to 255 integers, one for each byte.
fn push_bytes(cbor: &mut Vec<u8>, bytes: &[u8]) {
    cbor.extend([0x98, u8::try_from(bytes.len()).unwrap()]);
    for byte in bytes {
        if *byte >= 24 {
            cbor.push(0x18);
        }
        cbor.push(*byte);
    }
}
