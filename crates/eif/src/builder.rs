//! Writes an EIF of version 4, without a signature.
//!
//! Sections are written as they come, in the order of AWS's tools: kernel, command line, metadata, ramdisks. Their sizes
//! are known only then, so section headers and the file header are filled in at the end. A file whose writing was
//! interrupted therefore begins with zeros and is never taken for an EIF. The same input gives the same bytes.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::{
    Arch, FileCrc, HEADER_LEN, MAX_METADATA, MAX_SECTIONS, Measurements, Measurer, Metadata,
    SECTION_HEADER_LEN, Section, SectionKind, header,
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
}

/// An image being written: [`new`](Self::new), any number of ramdisks, [`finish`](Self::finish).
///
/// `W` is written from offset 0 on and should be empty. Data goes to it in the pieces it comes in, so wrap it in a
/// [`std::io::BufWriter`] if ramdisks are written in small ones.
#[derive(Debug)]
pub struct Builder<W> {
    out: W,
    arch: Arch,
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
        let mut builder = Self {
            out,
            arch,
            sections: Vec::new(),
            measurer: Measurer::new(),
        };
        builder.begin(SectionKind::Kernel)?;
        builder.copy(SectionKind::Kernel, kernel)?;
        builder.begin(SectionKind::Cmdline)?;
        builder.append(cmdline).map_err(WriteError::Output)?;
        builder.begin(SectionKind::Metadata)?;
        builder.append(&metadata).map_err(WriteError::Output)?;
        Ok(builder)
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
        let mut header = header::encode(self.arch, DEFAULT_MEM, DEFAULT_CPUS, sections);
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
