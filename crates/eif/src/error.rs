//! What can be wrong with an EIF.

use std::io;

use crate::header::{CRC_OFFSET, FLAGS_OFFSET, MAX_SECTIONS, SECTION_COUNT_OFFSET, VERSION_OFFSET};
use crate::{HEADER_LEN, SectionKind, SignatureError};

/// Why a file is not accepted as an EIF. Each variant says where: see [`EifError::offset`].
///
/// `index` counts the entries of the header's section table from 0.
#[derive(Debug, thiserror::Error)]
pub enum EifError {
    /// The source failed, or turned out shorter than was said.
    #[error("cannot read {length} bytes at offset {offset:#x}")]
    Read {
        /// Where the read began.
        offset: u64,
        /// Bytes asked for.
        length: usize,
        /// What the source reported.
        source: io::Error,
    },
    /// Not even a header fits.
    #[error("not an EIF: the file has {size} bytes, an EIF header has {HEADER_LEN}")]
    TooShort {
        /// Bytes in the file.
        size: u64,
    },
    /// The first four bytes are not `.eif`.
    #[error("not an EIF: the file begins with {found:02x?}, not with \".eif\"")]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A version that is not 2, 3 or 4.
    #[error("EIF version {found} at offset {VERSION_OFFSET:#x} is not supported; 2, 3 and 4 are")]
    UnsupportedVersion {
        /// The version field.
        found: u16,
    },
    /// Header flags beyond bit 0, the architecture.
    #[error("flags {found:#06x} at offset {FLAGS_OFFSET:#x} are not supported; only bit 0 (aarch64) is")]
    UnsupportedFlags {
        /// The flags field.
        found: u16,
    },
    /// Too few sections to boot from, or more than the table holds.
    #[error("{found} sections at offset {SECTION_COUNT_OFFSET:#x}; an EIF has 2 to {MAX_SECTIONS}")]
    SectionCount {
        /// The number of sections field.
        found: u16,
    },
    /// The file ends before or inside a section header.
    #[error(
        "the header of section {index} at offset {offset:#x} is cut off: the file has {file_size:#x} bytes"
    )]
    SectionHeaderCutOff {
        /// Which entry of the section table.
        index: usize,
        /// Where the section header should be.
        offset: u64,
        /// Bytes in the file.
        file_size: u64,
    },
    /// A section type that is 0 or unknown.
    #[error("section {index} has type {found} at offset {offset:#x}; the types are 1 to 5")]
    UnknownSectionType {
        /// Which entry of the section table.
        index: usize,
        /// Where the type is.
        offset: u64,
        /// The type field.
        found: u16,
    },
    /// Section flags, of which none is defined.
    #[error("section {index} ({kind}) has flags {found:#06x} at offset {offset:#x}; none is defined")]
    UnsupportedSectionFlags {
        /// Which entry of the section table.
        index: usize,
        /// What the section is.
        kind: SectionKind,
        /// Where the flags are.
        offset: u64,
        /// The flags field.
        found: u16,
    },
    /// The section header and the header's section table disagree on a size.
    #[error(
        "section {index} ({kind}) has {found} bytes by its section header at offset {offset:#x}, \
         but {expected} by the file header"
    )]
    SectionSizeMismatch {
        /// Which entry of the section table.
        index: usize,
        /// What the section is.
        kind: SectionKind,
        /// Where the section header's size is.
        offset: u64,
        /// The size in the section header.
        found: u64,
        /// The size in the file header's table.
        expected: u64,
    },
    /// A section of a kind that is kept in memory is larger than that allows.
    #[error("section {index} ({kind}) at offset {offset:#x} has {size} bytes; the limit is {limit}")]
    SectionTooLarge {
        /// Which entry of the section table.
        index: usize,
        /// What the section is.
        kind: SectionKind,
        /// Where its data begins.
        offset: u64,
        /// Bytes of data.
        size: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// The file ends inside a section's data.
    #[error(
        "section {index} ({kind}) is cut off: {size} bytes from offset {offset:#x} on, \
         but the file has {file_size:#x} bytes"
    )]
    SectionCutOff {
        /// Which entry of the section table.
        index: usize,
        /// What the section is.
        kind: SectionKind,
        /// Where its data begins.
        offset: u64,
        /// Bytes of data it should have.
        size: u64,
        /// Bytes in the file.
        file_size: u64,
    },
    /// A section begins inside the header or inside the section before it.
    #[error("section {index} at offset {offset:#x} overlaps what ends at {previous_end:#x}")]
    SectionOverlap {
        /// Which entry of the section table.
        index: usize,
        /// Where its section header begins.
        offset: u64,
        /// Where it may begin.
        previous_end: u64,
    },
    /// Bytes between two sections belong to neither: they would escape the measurements and the CRC.
    #[error("section {index} at offset {offset:#x} does not follow what ends at {previous_end:#x}")]
    SectionGap {
        /// Which entry of the section table.
        index: usize,
        /// Where its section header begins.
        offset: u64,
        /// Where it should begin.
        previous_end: u64,
    },
    /// A second section of a kind that occurs once.
    #[error("a second {kind} section at offset {offset:#x}; there may be one")]
    DuplicateSection {
        /// What the section is.
        kind: SectionKind,
        /// Where the data of the second one begins.
        offset: u64,
    },
    /// A section of a kind that the file's version does not have.
    #[error("a {kind} section at offset {offset:#x} in an EIF of version {version}")]
    SectionNotInVersion {
        /// What the section is.
        kind: SectionKind,
        /// Where its data begins.
        offset: u64,
        /// The file's version.
        version: u16,
    },
    /// A ramdisk comes before the kernel.
    #[error("a ramdisk at offset {offset:#x} before the kernel at {kernel:#x}")]
    RamdiskBeforeKernel {
        /// Where the ramdisk's data begins.
        offset: u64,
        /// Where the kernel's data begins.
        kernel: u64,
    },
    /// The section table has no section of a kind that there must be.
    #[error("no {kind} among the sections in the table at offset {SECTION_COUNT_OFFSET:#x}")]
    MissingSection {
        /// What is missing.
        kind: SectionKind,
    },
    /// The file is damaged. Only [`crate::Layout::check_crc`] gives this: a tool may want to go on and say so.
    #[error(
        "the file is damaged: its CRC-32 is {computed:#010x}, but {stored:#010x} at offset {CRC_OFFSET:#x}"
    )]
    CrcMismatch {
        /// The CRC in the header.
        stored: u32,
        /// The CRC of the file.
        computed: u32,
    },
    /// The metadata is not the JSON that version 4 asks for.
    #[error("malformed metadata at offset {offset:#x}")]
    Metadata {
        /// Where the section's data begins.
        offset: u64,
        /// What is wrong and in which line and column of the JSON.
        source: serde_json::Error,
    },
    /// The signature section cannot be read. Whether a signature is valid is not a matter of the format.
    #[error("malformed signature section at offset {offset:#x}")]
    Signature {
        /// Where in the file the problem is.
        offset: u64,
        /// What is wrong.
        source: SignatureError,
    },
}

impl EifError {
    /// The file offset, in bytes, of what is wrong. For something missing: of the field that should lead to it.
    pub fn offset(&self) -> u64 {
        match self {
            Self::TooShort { .. } | Self::BadMagic { .. } => 0,
            Self::UnsupportedVersion { .. } => VERSION_OFFSET as u64,
            Self::UnsupportedFlags { .. } => FLAGS_OFFSET as u64,
            Self::SectionCount { .. } | Self::MissingSection { .. } => SECTION_COUNT_OFFSET as u64,
            Self::CrcMismatch { .. } => CRC_OFFSET as u64,
            Self::Read { offset, .. }
            | Self::SectionHeaderCutOff { offset, .. }
            | Self::UnknownSectionType { offset, .. }
            | Self::UnsupportedSectionFlags { offset, .. }
            | Self::SectionSizeMismatch { offset, .. }
            | Self::SectionTooLarge { offset, .. }
            | Self::SectionCutOff { offset, .. }
            | Self::SectionOverlap { offset, .. }
            | Self::SectionGap { offset, .. }
            | Self::DuplicateSection { offset, .. }
            | Self::SectionNotInVersion { offset, .. }
            | Self::RamdiskBeforeKernel { offset, .. }
            | Self::Metadata { offset, .. }
            | Self::Signature { offset, .. } => *offset,
        }
    }
}
