//! One pass over the EIF: every byte is read once, straight to where it belongs in guest memory, and goes into the PCR
//! hashes and the CRC from there.
//!
//! What is measured is therefore what runs, whatever happens to the file meanwhile. The table of contents is read
//! first, because where the ramdisks go depends on their total size; a file that changes between that and the pass
//! fails its CRC.
//!
//! Kernel sections follow a [`KernelPlan`]; ramdisks are laid end to end, each at a multiple of four bytes as the
//! kernel's unpacker wants, as high in memory as the kernel can reach (`ramdisks`). Metadata and signature are summed
//! and kept until the CRC has turned out right: only then is it their own fault if they are malformed.

mod pass;
mod ramdisks;
#[cfg(test)]
mod tests;

use std::fs::File;

use api::vmm::ImageSignature;
use eif::{EifError, Layout, Measurements, Metadata, Pcr, ReadAt, Section, SectionKind, SignatureSection};

use crate::{
    arch::{self, KernelError, KernelPlan},
    memory::ExclusiveMemory,
};
use pass::Pass;
use ramdisks::Ramdisks;

/// What the loader leaves behind.
#[derive(Debug)]
pub struct Loaded {
    /// Of exactly the bytes in guest memory.
    pub measurements: Measurements,
    /// Of a signed image: its signature, not verified, and the measurement of the signer's certificate.
    pub signature: Option<(ImageSignature, Pcr)>,
    /// How to enter the kernel.
    pub kernel: KernelPlan,
    /// The measured command line with the machine's arguments appended, without NUL.
    pub cmdline: Vec<u8>,
    /// Guest-physical address and length of all ramdisks together.
    pub initrd: Option<(u64, u64)>,
}

/// Why an EIF cannot be booted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is malformed, or its CRC does not match what was read.
    #[error("the image is not a well-formed EIF")]
    Eif(#[from] EifError),
    /// It is for another kind of processor.
    #[error("the image is for {image}, but this machine is {machine}; build it for {machine}")]
    ForeignArchitecture {
        /// What the EIF's header says.
        image: eif::Arch,
        /// What runs it.
        machine: eif::Arch,
    },
    /// Its kernel section is no kernel.
    #[error("the image's kernel cannot be started")]
    Kernel(#[from] KernelError),
    /// The command line with the machine's arguments is too long.
    #[error("the command line of {length} bytes exceeds the kernel's limit of {limit}")]
    CmdlineTooLong {
        /// Bytes with what the machine appends.
        length: usize,
        /// What the kernel or the machine can take.
        limit: usize,
    },
    /// Kernel or ramdisks do not fit.
    #[error(
        "no room for {what} of {size} bytes in {ram} bytes of enclave memory; give the enclave more memory"
    )]
    TooLarge {
        /// The thing.
        what: &'static str,
        /// Its bytes.
        size: u64,
        /// All memory of the enclave, in bytes.
        ram: u64,
    },
    /// The file could not be read.
    #[error("reading the image at offset {offset} failed")]
    Read {
        /// Where, in bytes.
        offset: u64,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// Loads and measures the EIF in `file` into memory of `ram` bytes.
///
/// # Errors
/// See [`LoadError`]. Guest memory may then hold parts of the image.
pub fn load(file: &File, memory: ExclusiveMemory<'_>, ram: u64) -> Result<Loaded, LoadError> {
    let size = file
        .metadata()
        .map_err(|source| LoadError::Read { offset: 0, source })?
        .len();
    load_from(file, size, memory, ram)
}

/// The same for any source of `size` bytes.
pub(crate) fn load_from(
    file: &(impl ReadAt + ?Sized),
    size: u64,
    memory: ExclusiveMemory<'_>,
    ram: u64,
) -> Result<Loaded, LoadError> {
    let contents = Layout::read(file, size)?;
    if contents.header.arch != arch::EIF_ARCH {
        return Err(LoadError::ForeignArchitecture {
            image: contents.header.arch,
            machine: arch::EIF_ARCH,
        });
    }
    let mut pass = Pass::new(file, memory, ram, &contents.header);
    let mut kernel = None;
    let mut cmdline = Vec::new();
    let mut metadata = None;
    let mut signature = None;
    let mut ramdisks = Ramdisks::of(&contents);
    for section in &contents.sections {
        pass.begin(section);
        match section.kind {
            SectionKind::Kernel => kernel = Some(pass.kernel(section)?),
            SectionKind::Cmdline => cmdline = pass.cmdline(section)?,
            SectionKind::Ramdisk => ramdisks.load_next(&mut pass, section, kernel.as_ref())?,
            SectionKind::Metadata => metadata = Some((section, pass.keep(section)?)),
            SectionKind::Signature => signature = Some((section, pass.keep(section)?)),
        }
    }
    let measurements = pass.finish(&contents)?;
    if let Some((section, data)) = metadata {
        Metadata::parse(section, &data)?;
    }
    let signature = signature
        .map(|(section, data)| read_signature(section, &data))
        .transpose()?;
    let kernel = kernel.ok_or(KernelError::Unrecognised([0; 4]))?;
    if cmdline.len() > kernel.cmdline_max {
        return Err(LoadError::CmdlineTooLong {
            length: cmdline.len(),
            limit: kernel.cmdline_max,
        });
    }
    Ok(Loaded {
        measurements,
        signature,
        kernel,
        cmdline,
        initrd: ramdisks.placed(),
    })
}

/// The certificate and the signature in a signature section, with PCR8.
fn read_signature(section: &Section, data: &[u8]) -> Result<(ImageSignature, Pcr), EifError> {
    let parsed = SignatureSection::parse(section, data)?;
    let certificate = parsed.certificate_der(section)?;
    let pcr8 = Pcr::of_data(&certificate);
    let signature = ImageSignature {
        certificate,
        cose_sign1: parsed.cose_sign1,
    };
    Ok((signature, pcr8))
}
