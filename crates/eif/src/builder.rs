//! Writes an EIF: a new one of version 4, or the copy of another one that is to be signed.
//!
//! Sections are written as they come, in the order of AWS's tools: kernel, command line, metadata, ramdisks, and the
//! signature if there is one. Their sizes are known only then, so section headers and the file header are filled in at the
//! end. A file whose writing was interrupted therefore begins with zeros and is never taken for an EIF. The same input gives
//! the same bytes.
//!
//! A signature is over measurements of what has been written, [`Builder::measurements`], so that nothing can change between
//! measuring and writing.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::inspect::read_section;
use crate::{
    Arch, EifError, FileCrc, HEADER_LEN, Layout, MAX_METADATA, MAX_SECTIONS, MAX_SIGNATURE, Measurements,
    Measurer, Metadata, ReadAt, SECTION_HEADER_LEN, Section, SectionKind, SignatureSection, header,
};

/// What AWS's tools put into the header. Nothing acts on it.
const DEFAULT_MEM: u64 = 1024 * 1024 * 1024;

/// Likewise.
const DEFAULT_CPUS: u64 = 2;

/// Bytes copied at a time.
const BUFFER_LEN: usize = 128 * 1024;

/// Kernel, command line and metadata.
const OTHER_SECTIONS: usize = 3;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output failed.
    #[error("cannot write the enclave image")]
    Output(#[source] io::Error),
    /// A source failed.
    #[error("cannot read the {kind}")]
    Input {
        /// What was being read.
        kind: SectionKind,
        /// What the source reported.
        source: io::Error,
    },
    /// The metadata has no JSON form.
    #[error("cannot write the metadata as JSON")]
    Metadata(#[source] serde_json::Error),
    /// The metadata is larger than any reader takes.
    #[error("the metadata has {size} bytes as JSON; the limit is {MAX_METADATA}")]
    MetadataTooLarge {
        /// Its size in bytes.
        size: usize,
    },
    /// The section table is full.
    #[error("too many ramdisks: an enclave image has at most {}", MAX_SECTIONS - OTHER_SECTIONS)]
    TooManyRamdisks,
    /// The image to be copied is not well-formed, or damaged.
    #[error(transparent)]
    Source(#[from] EifError),
    /// The image is of a version that has no signatures.
    #[error(
        "an enclave image of version {version} cannot be signed, only one of version 3 or 4; build it again"
    )]
    VersionWithoutSignature {
        /// The version.
        version: u16,
    },
    /// There is a signature already.
    #[error("the enclave image has a signature already")]
    SecondSignature,
    /// The section table has no room for a signature.
    #[error("no room for a signature: the enclave image has {MAX_SECTIONS} sections, the most there can be")]
    NoRoomForSignature,
    /// The signature is larger than any reader takes.
    #[error(
        "the signature section has {size} bytes, most of them for the certificate; the limit is {MAX_SIGNATURE}"
    )]
    SignatureTooLarge {
        /// Its size in bytes.
        size: usize,
    },
}

/// An image being written: [`new`](Self::new), any number of ramdisks, perhaps a signature, [`finish`](Self::finish). Or
/// [`unsigned_copy`](Self::unsigned_copy), signature, [`finish`](Self::finish).
///
/// `W` is written from offset 0 on and should be empty. Data goes to it in the pieces it comes in, so wrap it in a
/// [`std::io::BufWriter`] if ramdisks are written in small ones.
#[derive(Debug)]
pub struct Builder<W> {
    out: W,
    /// The file header but for what depends on the sections.
    header: [u8; HEADER_LEN],
    /// In file order; the last is the one being written.
    sections: Vec<WrittenSection>,
    measurer: Measurer,
}

#[derive(Debug)]
struct WrittenSection {
    section: Section,
    /// Of the data alone. The section header comes before it but is known after it.
    crc: crc32fast::Hasher,
}

impl<W: Write + Seek> Builder<W> {
    /// Begins an image and writes all that comes before the ramdisks.
    ///
    /// # Errors
    /// Every variant of [`WriteError`] but [`WriteError::TooManyRamdisks`].
    pub fn new(
        out: W,
        arch: Arch,
        kernel: &mut (impl Read + ?Sized),
        cmdline: &[u8],
        metadata: &Metadata,
    ) -> Result<Self, WriteError> {
        let metadata = serde_json::to_vec(metadata).map_err(WriteError::Metadata)?;
        if metadata.len() as u64 > MAX_METADATA {
            return Err(WriteError::MetadataTooLarge { size: metadata.len() });
        }
        let mut builder = Self::empty(out, &header::encode(arch, DEFAULT_MEM, DEFAULT_CPUS));
        builder.begin(SectionKind::Kernel)?;
        builder.copy(SectionKind::Kernel, kernel)?;
        builder.begin(SectionKind::Cmdline)?;
        builder.append(cmdline).map_err(WriteError::Output)?;
        builder.begin(SectionKind::Metadata)?;
        builder.append(&metadata).map_err(WriteError::Output)?;
        Ok(builder)
    }

    /// Copies the image in `file`, of `file_size` bytes, in file order, without the signature it may have and without what
    /// follows the last section. Its version, flags and unused bytes stay as they are.
    ///
    /// # Errors
    /// [`WriteError::Source`], also if the image is damaged: to write a new CRC would hide it. [`WriteError::Output`].
    pub fn unsigned_copy(file: &(impl ReadAt + ?Sized), file_size: u64, out: W) -> Result<Self, WriteError> {
        let layout = Layout::read(file, file_size)?;
        let mut crc = FileCrc::new(layout.header.as_bytes());
        let mut builder = Self::empty(out, layout.header.as_bytes());
        let mut buffer = vec![0; BUFFER_LEN];
        for section in &layout.sections {
            crc.update(&section.header_bytes());
            let is_kept = section.kind != SectionKind::Signature;
            if is_kept {
                builder.begin(section.kind)?;
            }
            let mut written = Ok(());
            read_section(file, section, &mut buffer, |piece| {
                crc.update(piece);
                if is_kept && written.is_ok() {
                    written = builder.append(piece);
                }
            })?;
            written.map_err(WriteError::Output)?;
        }
        layout.check_crc(crc)?;
        Ok(builder)
    }

    fn empty(out: W, header: &[u8; HEADER_LEN]) -> Self {
        Self {
            out,
            header: *header,
            sections: Vec::new(),
            measurer: Measurer::new().in_parallel(),
        }
    }

    /// Copies the next ramdisk from `source` to its end.
    ///
    /// # Errors
    /// [`WriteError::Output`], [`WriteError::Input`], [`WriteError::TooManyRamdisks`].
    pub fn add_ramdisk(&mut self, source: &mut (impl Read + ?Sized)) -> Result<(), WriteError> {
        self.ramdisk()?;
        self.copy(SectionKind::Ramdisk, source)
    }

    /// The next ramdisk, for a caller that makes it while writing. It ends where another one begins or with
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`WriteError::Output`], [`WriteError::TooManyRamdisks`].
    pub fn ramdisk(&mut self) -> Result<RamdiskWriter<'_, W>, WriteError> {
        if self.sections.len() >= MAX_SECTIONS {
            return Err(WriteError::TooManyRamdisks);
        }
        self.begin(SectionKind::Ramdisk)?;
        Ok(RamdiskWriter(self))
    }

    /// The measurements of everything written so far.
    pub fn measurements(&self) -> Measurements {
        self.measurer.clone().finish()
    }

    /// Writes the signature, which must be over PCR0 of [`measurements`](Self::measurements). It comes last.
    ///
    /// # Errors
    /// [`WriteError::Output`], [`WriteError::VersionWithoutSignature`], [`WriteError::SecondSignature`],
    /// [`WriteError::NoRoomForSignature`], [`WriteError::SignatureTooLarge`]. Nothing is written then, except for the first.
    pub fn add_signature(&mut self, signature: &SignatureSection) -> Result<(), WriteError> {
        let kind = SectionKind::Signature;
        let version = header::version(&self.header);
        if version < kind.since_version() {
            return Err(WriteError::VersionWithoutSignature { version });
        }
        if self.sections.iter().any(|written| written.section.kind == kind) {
            return Err(WriteError::SecondSignature);
        }
        if self.sections.len() >= MAX_SECTIONS {
            return Err(WriteError::NoRoomForSignature);
        }
        let data = signature.encode();
        if data.len() as u64 > MAX_SIGNATURE {
            return Err(WriteError::SignatureTooLarge { size: data.len() });
        }
        self.begin(kind)?;
        self.append(&data).map_err(WriteError::Output)
    }

    /// Fills in the headers and flushes. Only now is the file an EIF.
    ///
    /// # Errors
    /// [`WriteError::Output`].
    pub fn finish(mut self) -> Result<Measurements, WriteError> {
        self.write_headers().map_err(WriteError::Output)?;
        Ok(self.measurer.finish())
    }

    /// Leaves room for a section header.
    fn begin(&mut self, kind: SectionKind) -> Result<(), WriteError> {
        let end = self
            .sections
            .last()
            .map_or(HEADER_LEN as u64, |last| last.section.end());
        let section = Section {
            kind,
            offset: end + SECTION_HEADER_LEN as u64,
            size: 0,
        };
        self.out
            .seek(SeekFrom::Start(section.offset))
            .map_err(WriteError::Output)?;
        self.sections.push(WrittenSection {
            section,
            crc: crc32fast::Hasher::new(),
        });
        self.measurer.begin(kind);
        Ok(())
    }

    /// Writes `data` to the section that was begun last.
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.out.write_all(data)?;
        if let Some(last) = self.sections.last_mut() {
            last.section.size += data.len() as u64;
            last.crc.update(data);
        }
        self.measurer.update(data);
        Ok(())
    }

    fn copy(&mut self, kind: SectionKind, source: &mut (impl Read + ?Sized)) -> Result<(), WriteError> {
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    let (piece, _) = buffer.split_at(length.min(BUFFER_LEN));
                    self.append(piece).map_err(WriteError::Output)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(WriteError::Input { kind, source }),
            }
        }
    }

    fn write_headers(&mut self) -> io::Result<()> {
        let sections = self.sections.iter().map(|written| &written.section);
        let mut header = header::with_sections(&self.header, sections);
        let mut crc = FileCrc::new(&header);
        for written in &self.sections {
            let section_header = written.section.header_bytes();
            crc.update(&section_header);
            crc.append(&written.crc);
            self.out.seek(SeekFrom::Start(written.section.header_offset()))?;
            self.out.write_all(&section_header)?;
        }
        header::set_crc(&mut header, crc.finish());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.flush()
    }
}

/// Takes the bytes of one ramdisk.
#[derive(Debug)]
pub struct RamdiskWriter<'a, W>(&'a mut Builder<W>);

impl<W: Write + Seek> Write for RamdiskWriter<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.append(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.out.flush()
    }
}
