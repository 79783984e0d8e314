//! One pass over a file for a tool that wants to know all about it.

use crate::{
    EifError, FileCrc, Layout, Measurements, Measurer, Metadata, Pcr, ReadAt, Section, SectionKind,
    SignatureSection,
};

/// Bytes read at a time: large enough that the cost of a read does not show, small enough to stay in the processor's cache.
const BUFFER_LEN: usize = 128 * 1024;

/// What is in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Header and sections.
    pub layout: Layout,
    /// PCR0, PCR1 and PCR2.
    pub measurements: Measurements,
    /// The CRC-32 of the file as it is.
    pub crc_computed: u32,
    /// Whether that is the CRC-32 in the header.
    pub crc_ok: bool,
    /// Of a version 4 file.
    pub metadata: Option<Metadata>,
    /// Of a signed file. Not verified.
    pub signature: Option<SignatureSection>,
    /// The measurement of the signer's certificate, of a signed file.
    pub pcr8: Option<Pcr>,
}

/// Reads a file of `file_size` bytes once, front to back. Takes a little memory besides the metadata and the signature.
///
/// A wrong CRC is not an error here; see [`Inspection::crc_ok`].
///
/// # Errors
/// Every variant of [`EifError`] but [`EifError::CrcMismatch`].
pub fn inspect(file: &(impl ReadAt + ?Sized), file_size: u64) -> Result<Inspection, EifError> {
    let layout = Layout::read(file, file_size)?;
    let mut measurer = Measurer::new();
    let mut crc = FileCrc::new(layout.header.as_bytes());
    let mut metadata = None;
    let mut signed = None;
    let mut buffer = vec![0; BUFFER_LEN];
    for section in &layout.sections {
        measurer.begin(section.kind);
        crc.update(&section.header_bytes());
        // Kept is only what `Layout` has bounded.
        let keep = matches!(section.kind, SectionKind::Metadata | SectionKind::Signature);
        let mut kept = Vec::new();
        read_section(file, section, &mut buffer, |piece| {
            crc.update(piece);
            measurer.update(piece);
            if keep {
                kept.extend_from_slice(piece);
            }
        })?;
        match section.kind {
            SectionKind::Metadata => metadata = Some(Metadata::parse(section, &kept)?),
            SectionKind::Signature => {
                let signature = SignatureSection::parse(section, &kept)?;
                let pcr8 = signature.pcr8(section)?;
                signed = Some((signature, pcr8));
            }
            SectionKind::Kernel | SectionKind::Cmdline | SectionKind::Ramdisk => {}
        }
    }
    let crc_computed = crc.finish();
    let (signature, pcr8) = signed.unzip();
    Ok(Inspection {
        crc_computed,
        crc_ok: crc_computed == layout.header.crc32,
        measurements: measurer.finish(),
        metadata,
        signature,
        pcr8,
        layout,
    })
}

/// Passes the data of `section` to `take` in pieces of at most `buffer.len()` bytes, which is not 0.
pub(crate) fn read_section(
    file: &(impl ReadAt + ?Sized),
    section: &Section,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8]),
) -> Result<(), EifError> {
    let mut offset = section.offset;
    while offset < section.end() {
        let left = usize::try_from(section.end() - offset).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        let (piece, _) = buffer.split_at_mut(length);
        file.read_exact_at(piece, offset)
            .map_err(|source| EifError::Read {
                offset,
                length,
                source,
            })?;
        take(piece);
        offset += length as u64;
    }
    Ok(())
}
