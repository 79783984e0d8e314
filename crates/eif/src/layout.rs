//! The checked table of contents: what is in a file and where, known before any section is read.

use crate::header::TableEntry;
use crate::section::{RawSectionHeader, SECTION_FLAGS_OFFSET, SECTION_SIZE_OFFSET};
use crate::{
    EifError, FileCrc, HEADER_LEN, Header, MAX_METADATA, MAX_SIGNATURE, ReadAt, SECTION_HEADER_LEN, Section,
    SectionKind,
};

/// A file's header and sections. Having one means that the sections are all inside the file, follow one another from the
/// end of the header on, and are those that the version asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The file header.
    pub header: Header,
    /// Every section, in file order.
    pub sections: Vec<Section>,
    /// Bytes in the file.
    pub file_size: u64,
    kernel: Section,
    cmdline: Section,
}

impl Layout {
    /// Reads the header and the section headers of a file of `file_size` bytes: one positioned read for the header and
    /// one for each section, 33 at most. Section data is not read.
    ///
    /// Bytes after the last section are let be, as AWS's tools do; see [`Layout::trailing_bytes`].
    ///
    /// # Errors
    /// Every variant of [`EifError`] but [`EifError::CrcMismatch`], [`EifError::Metadata`] and
    /// [`EifError::Signature`], which are about what the sections hold.
    pub fn read(file: &(impl ReadAt + ?Sized), file_size: u64) -> Result<Self, EifError> {
        if file_size < HEADER_LEN as u64 {
            return Err(EifError::TooShort { size: file_size });
        }
        let header = Header::parse(&read_array(file, 0)?)?;
        let sections = read_sections(file, file_size, &header)?;
        check_versions(&sections, header.version)?;
        let kernel = exactly_one(&sections, SectionKind::Kernel)?;
        let cmdline = exactly_one(&sections, SectionKind::Cmdline)?;
        let metadata = at_most_one(&sections, SectionKind::Metadata)?;
        if metadata.is_none() && header.version >= SectionKind::Metadata.since_version() {
            return Err(EifError::MissingSection {
                kind: SectionKind::Metadata,
            });
        }
        at_most_one(&sections, SectionKind::Signature)?;
        let ramdisk = sections
            .iter()
            .find(|section| section.kind == SectionKind::Ramdisk);
        if let Some(ramdisk) = ramdisk.filter(|ramdisk| ramdisk.offset < kernel.offset) {
            return Err(EifError::RamdiskBeforeKernel {
                offset: ramdisk.offset,
                kernel: kernel.offset,
            });
        }
        Ok(Self {
            header,
            sections,
            file_size,
            kernel,
            cmdline,
        })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Section {
        &self.kernel
    }

    /// The kernel's command line.
    pub fn cmdline(&self) -> &Section {
        &self.cmdline
    }

    /// The ramdisks, in file order.
    pub fn ramdisks(&self) -> impl Iterator<Item = &Section> {
        self.sections
            .iter()
            .filter(|section| section.kind == SectionKind::Ramdisk)
    }

    /// The metadata: always there in version 4, never before.
    pub fn metadata(&self) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.kind == SectionKind::Metadata)
    }

    /// The signature, of a signed image.
    pub fn signature(&self) -> Option<&Section> {
        self.sections
            .iter()
            .find(|section| section.kind == SectionKind::Signature)
    }

    /// How many bytes follow the last section. They are in no measurement and not in the CRC.
    pub fn trailing_bytes(&self) -> u64 {
        let end = self.sections.last().map_or(HEADER_LEN as u64, Section::end);
        self.file_size.saturating_sub(end)
    }

    /// Compares `crc`, fed with the whole file, to what the header says.
    ///
    /// # Errors
    /// [`EifError::CrcMismatch`].
    pub fn check_crc(&self, crc: FileCrc) -> Result<(), EifError> {
        let computed = crc.finish();
        if computed == self.header.crc32 {
            Ok(())
        } else {
            Err(EifError::CrcMismatch {
                stored: self.header.crc32,
                computed,
            })
        }
    }
}

/// Every section in file order, each inside the file and beginning where the one before ends.
fn read_sections(
    file: &(impl ReadAt + ?Sized),
    file_size: u64,
    header: &Header,
) -> Result<Vec<Section>, EifError> {
    let mut table: Vec<(usize, TableEntry)> = header.table().enumerate().collect();
    table.sort_by_key(|(_, entry)| entry.offset);
    let mut sections = Vec::with_capacity(table.len());
    let mut previous_end = HEADER_LEN as u64;
    for (index, entry) in table {
        let offset = entry.offset;
        if offset < previous_end {
            return Err(EifError::SectionOverlap {
                index,
                offset,
                previous_end,
            });
        }
        if offset > file_size.saturating_sub(SECTION_HEADER_LEN as u64) {
            return Err(EifError::SectionHeaderCutOff {
                index,
                offset,
                file_size,
            });
        }
        if offset > previous_end {
            return Err(EifError::SectionGap {
                index,
                offset,
                previous_end,
            });
        }
        let raw = RawSectionHeader::decode(read_array(file, offset)?);
        let section = check_section(index, entry, raw, file_size)?;
        previous_end = section.end();
        sections.push(section);
    }
    Ok(sections)
}

/// Checks one section header against its `entry` in the section table and the end of the file.
fn check_section(
    index: usize,
    entry: TableEntry,
    raw: RawSectionHeader,
    file_size: u64,
) -> Result<Section, EifError> {
    let offset = entry.offset;
    let Some(kind) = SectionKind::from_type(raw.section_type) else {
        return Err(EifError::UnknownSectionType {
            index,
            offset,
            found: raw.section_type,
        });
    };
    if raw.flags != 0 {
        let offset = offset.saturating_add(SECTION_FLAGS_OFFSET);
        return Err(EifError::UnsupportedSectionFlags {
            index,
            kind,
            offset,
            found: raw.flags,
        });
    }
    // Signing an image again with AWS's tools leaves the old signature's size in the table.
    if raw.size != entry.size && kind != SectionKind::Signature {
        let offset = offset.saturating_add(SECTION_SIZE_OFFSET);
        let (found, expected) = (raw.size, entry.size);
        return Err(EifError::SectionSizeMismatch {
            index,
            kind,
            offset,
            found,
            expected,
        });
    }
    let offset = offset.saturating_add(SECTION_HEADER_LEN as u64);
    let size = raw.size;
    let limit = match kind {
        SectionKind::Signature => MAX_SIGNATURE,
        SectionKind::Metadata => MAX_METADATA,
        SectionKind::Kernel | SectionKind::Cmdline | SectionKind::Ramdisk => u64::MAX,
    };
    if size > limit {
        return Err(EifError::SectionTooLarge {
            index,
            kind,
            offset,
            size,
            limit,
        });
    }
    if size > file_size.saturating_sub(offset) {
        return Err(EifError::SectionCutOff {
            index,
            kind,
            offset,
            size,
            file_size,
        });
    }
    Ok(Section { kind, offset, size })
}

/// Refuses kinds of sections that came with a later version.
fn check_versions(sections: &[Section], version: u16) -> Result<(), EifError> {
    match sections
        .iter()
        .find(|section| section.kind.since_version() > version)
    {
        Some(&Section { kind, offset, .. }) => Err(EifError::SectionNotInVersion {
            kind,
            offset,
            version,
        }),
        None => Ok(()),
    }
}

fn exactly_one(sections: &[Section], kind: SectionKind) -> Result<Section, EifError> {
    at_most_one(sections, kind)?.ok_or(EifError::MissingSection { kind })
}

fn at_most_one(sections: &[Section], kind: SectionKind) -> Result<Option<Section>, EifError> {
    let mut found = sections.iter().filter(|section| section.kind == kind);
    let first = found.next().copied();
    match found.next() {
        Some(second) => Err(EifError::DuplicateSection {
            kind,
            offset: second.offset,
        }),
        None => Ok(first),
    }
}

fn read_array<const N: usize>(file: &(impl ReadAt + ?Sized), offset: u64) -> Result<[u8; N], EifError> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|source| EifError::Read {
            offset,
            length: N,
            source,
        })?;
    Ok(bytes)
}
