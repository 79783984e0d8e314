//! The 548 bytes at the start of the file.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0x000 | 4 | `.eif` |
//! | 0x004 | 2 | version |
//! | 0x006 | 2 | flags: bit 0 set for aarch64 |
//! | 0x008 | 8 | memory the image suggests, in bytes |
//! | 0x010 | 8 | vCPUs the image suggests |
//! | 0x018 | 2 | reserved |
//! | 0x01a | 2 | number of sections |
//! | 0x01c | 32 × 8 | file offset of each section header |
//! | 0x11c | 32 × 8 | bytes of data in each section |
//! | 0x21c | 4 | unused |
//! | 0x220 | 4 | CRC-32 of the file without this field |

use std::fmt;

use crate::{EifError, Section};

/// Bytes in the file header.
pub const HEADER_LEN: usize = 548;

/// Entries in the header's section table.
pub const MAX_SECTIONS: usize = 32;

/// The least that can boot: a kernel and a command line.
const MIN_SECTIONS: usize = 2;

pub(crate) const MAGIC: [u8; 4] = *b".eif";
pub(crate) const VERSION_OFFSET: usize = 0x004;
pub(crate) const FLAGS_OFFSET: usize = 0x006;
const DEFAULT_MEM_OFFSET: usize = 0x008;
const DEFAULT_CPUS_OFFSET: usize = 0x010;
pub(crate) const SECTION_COUNT_OFFSET: usize = 0x01a;
const SECTION_OFFSETS_OFFSET: usize = 0x01c;
const SECTION_SIZES_OFFSET: usize = 0x11c;
pub(crate) const CRC_OFFSET: usize = 0x220;

/// Bit 0 of the flags field.
const FLAG_AARCH64: u16 = 1;

/// The first version with a usable CRC, and the first that a released tool wrote.
const OLDEST_VERSION: u16 = 2;

/// The version that [`crate::Builder`] writes.
pub(crate) const CURRENT_VERSION: u16 = 4;

/// The processor architecture that an image's kernel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

/// The file header. Its section table is in [`crate::Layout`], checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2, 3 or 4.
    pub version: u16,
    /// What the kernel is for.
    pub arch: Arch,
    /// Memory the image suggests, in bytes. Nothing acts on it.
    pub default_mem: u64,
    /// vCPUs the image suggests. Nothing acts on it.
    pub default_cpus: u64,
    /// 2 to 32.
    pub num_sections: u16,
    /// The CRC-32 that the file should have; see [`crate::FileCrc`].
    pub crc32: u32,
    bytes: [u8; HEADER_LEN],
}

/// One entry of the header's section table, unchecked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableEntry {
    /// File offset of the section header.
    pub(crate) offset: u64,
    /// Bytes of data, without the section header.
    pub(crate) size: u64,
}

impl Header {
    /// Parses and checks the fields that stand alone.
    ///
    /// # Errors
    /// [`EifError::BadMagic`], [`EifError::UnsupportedVersion`], [`EifError::UnsupportedFlags`],
    /// [`EifError::SectionCount`].
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, EifError> {
        let magic = field(bytes, 0);
        if magic != MAGIC {
            return Err(EifError::BadMagic { found: magic });
        }
        let version = version(bytes);
        if !(OLDEST_VERSION..=CURRENT_VERSION).contains(&version) {
            return Err(EifError::UnsupportedVersion { found: version });
        }
        let arch = match u16::from_be_bytes(field(bytes, FLAGS_OFFSET)) {
            0 => Arch::X86_64,
            FLAG_AARCH64 => Arch::Aarch64,
            found => return Err(EifError::UnsupportedFlags { found }),
        };
        let num_sections = u16::from_be_bytes(field(bytes, SECTION_COUNT_OFFSET));
        if !(MIN_SECTIONS..=MAX_SECTIONS).contains(&usize::from(num_sections)) {
            return Err(EifError::SectionCount { found: num_sections });
        }
        Ok(Self {
            version,
            arch,
            default_mem: u64::from_be_bytes(field(bytes, DEFAULT_MEM_OFFSET)),
            default_cpus: u64::from_be_bytes(field(bytes, DEFAULT_CPUS_OFFSET)),
            num_sections,
            crc32: u32::from_be_bytes(field(bytes, CRC_OFFSET)),
            bytes: *bytes,
        })
    }

    /// The header as it is in the file; [`crate::FileCrc`] begins with it.
    pub fn as_bytes(&self) -> &[u8; HEADER_LEN] {
        &self.bytes
    }

    /// The section table, in its own order, which need not be file order.
    pub(crate) fn table(&self) -> impl Iterator<Item = TableEntry> {
        (0..usize::from(self.num_sections)).map(|index| TableEntry {
            offset: u64::from_be_bytes(field(&self.bytes, SECTION_OFFSETS_OFFSET + 8 * index)),
            size: u64::from_be_bytes(field(&self.bytes, SECTION_SIZES_OFFSET + 8 * index)),
        })
    }
}

/// A header of the current version without sections; [`with_sections`] adds them.
pub(crate) fn encode(arch: Arch, default_mem: u64, default_cpus: u64) -> [u8; HEADER_LEN] {
    let flags = match arch {
        Arch::X86_64 => 0,
        Arch::Aarch64 => FLAG_AARCH64,
    };
    let mut bytes = [0; HEADER_LEN];
    put(&mut bytes, 0, MAGIC);
    put(&mut bytes, VERSION_OFFSET, CURRENT_VERSION.to_be_bytes());
    put(&mut bytes, FLAGS_OFFSET, flags.to_be_bytes());
    put(&mut bytes, DEFAULT_MEM_OFFSET, default_mem.to_be_bytes());
    put(&mut bytes, DEFAULT_CPUS_OFFSET, default_cpus.to_be_bytes());
    bytes
}

/// The version field of a header.
pub(crate) fn version(bytes: &[u8; HEADER_LEN]) -> u16 {
    u16::from_be_bytes(field(bytes, VERSION_OFFSET))
}

/// `header` with these `sections`, at most [`MAX_SECTIONS`], for its own, and a CRC of zero.
pub(crate) fn with_sections<'a>(
    header: &[u8; HEADER_LEN],
    sections: impl ExactSizeIterator<Item = &'a Section>,
) -> [u8; HEADER_LEN] {
    let mut bytes = *header;
    put(&mut bytes, SECTION_OFFSETS_OFFSET, [0; 8 * MAX_SECTIONS]);
    put(&mut bytes, SECTION_SIZES_OFFSET, [0; 8 * MAX_SECTIONS]);
    let mut count = 0_u16;
    for (index, section) in sections.take(MAX_SECTIONS).enumerate() {
        put(
            &mut bytes,
            SECTION_OFFSETS_OFFSET + 8 * index,
            section.header_offset().to_be_bytes(),
        );
        put(
            &mut bytes,
            SECTION_SIZES_OFFSET + 8 * index,
            section.size.to_be_bytes(),
        );
        count += 1;
    }
    put(&mut bytes, SECTION_COUNT_OFFSET, count.to_be_bytes());
    set_crc(&mut bytes, 0);
    bytes
}

/// Puts `crc32` into an encoded header.
pub(crate) fn set_crc(bytes: &mut [u8; HEADER_LEN], crc32: u32) {
    put(bytes, CRC_OFFSET, crc32.to_be_bytes());
}

/// The `N` bytes at `at`. Every caller's `at` is one of the offsets above, so the range is inside the header.
fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

/// The reverse of [`field`].
fn put<const N: usize>(bytes: &mut [u8; HEADER_LEN], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}
