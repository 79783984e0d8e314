//! What a section is, and the 12 bytes in front of its data.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | type |
//! | 2 | 2 | flags, none defined |
//! | 4 | 8 | bytes of data that follow |

use std::fmt;

/// Bytes in front of a section's data.
pub const SECTION_HEADER_LEN: usize = 12;

/// Where a section header's flags are, from its start.
pub(crate) const SECTION_FLAGS_OFFSET: u64 = 2;

/// Where a section header's size is, from its start.
pub(crate) const SECTION_SIZE_OFFSET: u64 = 4;

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// x86_64: a bzImage or an ELF vmlinux; aarch64: an uncompressed `Image`.
    Kernel,
    /// The kernel's command line, without a NUL.
    Cmdline,
    /// A cpio archive, compressed or not: a part of the initramfs.
    Ramdisk,
    /// CBOR: a certificate and the COSE signature of PCR0. See [`crate::SignatureSection`].
    Signature,
    /// JSON: where the image comes from. See [`crate::Metadata`].
    Metadata,
}

impl SectionKind {
    /// The kind with this number in a section header, if there is one.
    pub(crate) fn from_type(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Kernel),
            2 => Some(Self::Cmdline),
            3 => Some(Self::Ramdisk),
            4 => Some(Self::Signature),
            5 => Some(Self::Metadata),
            _ => None,
        }
    }

    fn to_type(self) -> u16 {
        match self {
            Self::Kernel => 1,
            Self::Cmdline => 2,
            Self::Ramdisk => 3,
            Self::Signature => 4,
            Self::Metadata => 5,
        }
    }

    /// The first version of the format that has it.
    pub(crate) fn since_version(self) -> u16 {
        match self {
            Self::Kernel | Self::Cmdline | Self::Ramdisk => 1,
            Self::Signature => 3,
            Self::Metadata => 4,
        }
    }
}

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Cmdline => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        })
    }
}

/// Where a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// File offset of its data. The section header is in the [`SECTION_HEADER_LEN`] bytes before.
    pub offset: u64,
    /// Bytes of data.
    pub size: u64,
}

impl Section {
    /// File offset of the section header.
    pub fn header_offset(&self) -> u64 {
        self.offset.saturating_sub(SECTION_HEADER_LEN as u64)
    }

    /// File offset just past the data.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }

    /// The section header, as it is in the file; [`crate::FileCrc`] wants it before the data.
    pub fn header_bytes(&self) -> [u8; SECTION_HEADER_LEN] {
        let [type_high, type_low] = self.kind.to_type().to_be_bytes();
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.size.to_be_bytes();
        [type_high, type_low, 0, 0, s0, s1, s2, s3, s4, s5, s6, s7]
    }
}

/// The fields of a section header, unchecked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawSectionHeader {
    pub(crate) section_type: u16,
    pub(crate) flags: u16,
    pub(crate) size: u64,
}

impl RawSectionHeader {
    pub(crate) fn decode(bytes: [u8; SECTION_HEADER_LEN]) -> Self {
        let [t0, t1, f0, f1, s0, s1, s2, s3, s4, s5, s6, s7] = bytes;
        Self {
            section_type: u16::from_be_bytes([t0, t1]),
            flags: u16::from_be_bytes([f0, f1]),
            size: u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
        }
    }
}
