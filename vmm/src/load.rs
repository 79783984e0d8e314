//! One pass over the EIF: every byte is read once, straight to where it belongs in guest memory, and goes into the PCR
//! hashes and the CRC from there.
//!
//! What is measured is therefore what runs, whatever happens to the file meanwhile. The table of contents is read
//! first, because where the ramdisks go depends on their total size; a file that changes between that and the pass
//! fails its CRC.
//!
//! Kernel sections follow a [`KernelPlan`]; ramdisks are laid end to end, each at a multiple of four bytes as the
//! kernel's unpacker wants, as high in memory as the kernel can reach; metadata and signature are only summed.

use std::{fs::File, os::unix::fs::FileExt};

use eif::{EifError, FileCrc, Layout, Measurements, Measurer, Section, SectionKind};

use crate::{
    arch::{self, KernelError, KernelPlan, layout},
    memory::{ExclusiveMemory, with_exclusive_bytes},
};

/// Bytes read at a time: large enough that the calls cost nothing, small enough to be hashed from the cache.
const CHUNK: usize = 1 << 20;

/// Ramdisks start at a page boundary.
const INITRD_ALIGNMENT: u64 = 4096;

/// What the loader leaves behind.
#[derive(Debug)]
pub struct Loaded {
    /// Of exactly the bytes in guest memory.
    pub measurements: Measurements,
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
    #[error("the image is for {image:?}, this machine is {machine:?}")]
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
        "{what} of {size} bytes does not fit into {ram} bytes of enclave memory; give the enclave more memory"
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
    let contents = Layout::read(file, size)?;
    if contents.header.arch != arch::EIF_ARCH {
        return Err(LoadError::ForeignArchitecture {
            image: contents.header.arch,
            machine: arch::EIF_ARCH,
        });
    }
    let mut pass = Pass {
        file,
        memory,
        ram,
        crc: FileCrc::new(contents.header.as_bytes()),
        measurer: Measurer::new(),
        position: 0,
        scratch: Vec::new(),
    };
    let mut kernel = None;
    let mut cmdline = Vec::new();
    let mut ramdisks = Ramdisks::of(&contents);
    for section in &contents.sections {
        pass.begin(section);
        match section.kind {
            SectionKind::Kernel => kernel = Some(pass.kernel(section)?),
            SectionKind::Cmdline => cmdline = pass.cmdline(section, kernel.as_ref())?,
            SectionKind::Ramdisk => ramdisks.load_next(&mut pass, section, kernel.as_ref())?,
            SectionKind::Metadata | SectionKind::Signature => pass.sum_to(section.end())?,
        }
    }
    contents.check_crc(pass.crc)?;
    let kernel = kernel.ok_or(KernelError::Unrecognised([0; 4]))?;
    Ok(Loaded {
        measurements: pass.measurer.finish(),
        kernel,
        cmdline,
        initrd: ramdisks.placed(),
    })
}

/// The one pass, at `position` in the file.
struct Pass<'a> {
    file: &'a File,
    memory: ExclusiveMemory<'a>,
    ram: u64,
    crc: FileCrc,
    measurer: Measurer,
    position: u64,
    /// For bytes that are not loaded.
    scratch: Vec<u8>,
}

impl Pass<'_> {
    /// Enters a section. Its header is known from the table of contents, which checked it.
    fn begin(&mut self, section: &Section) {
        self.crc.update(&section.header_bytes());
        self.measurer.begin(section.kind);
        self.position = section.offset;
    }

    /// Reads and sums up to `end` without measuring: metadata and signature.
    fn sum_to(&mut self, end: u64) -> Result<(), LoadError> {
        while self.position < end {
            let bytes = self.read_scratch(end - self.position, CHUNK)?;
            self.crc.update(&bytes);
            self.recycle(bytes);
        }
        Ok(())
    }

    /// Reads and measures `length` bytes that have no place in guest memory.
    fn measure_only(&mut self, length: u64) -> Result<(), LoadError> {
        let end = self.position + length;
        while self.position < end {
            let bytes = self.read_scratch(end - self.position, CHUNK)?;
            self.crc.update(&bytes);
            self.measurer.update(&bytes);
            self.recycle(bytes);
        }
        Ok(())
    }

    /// Reads and measures `length` bytes to guest-physical `address`.
    fn load_to(&mut self, mut address: u64, length: u64, what: &'static str) -> Result<(), LoadError> {
        let end = self.position + length;
        let too_large = LoadError::TooLarge {
            what,
            size: length,
            ram: self.ram,
        };
        let Self {
            file,
            memory,
            crc,
            measurer,
            position,
            ..
        } = self;
        while *position < end {
            let count = usize::try_from(end - *position).map_or(CHUNK, |rest| rest.min(CHUNK));
            let offset = *position;
            let read = with_exclusive_bytes(memory, address, count, |bytes| {
                file.read_exact_at(bytes, offset)?;
                crc.update(bytes);
                measurer.update(bytes);
                Ok(())
            });
            match read {
                Some(result) => result.map_err(|source| LoadError::Read { offset, source })?,
                None => return Err(too_large),
            }
            *position += count as u64;
            address += count as u64;
        }
        Ok(())
    }

    /// Up to `limit` of the next `wanted` bytes, in the scratch buffer, to be given back with [`Self::recycle`].
    fn read_scratch(&mut self, wanted: u64, limit: usize) -> Result<Vec<u8>, LoadError> {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.resize(
            usize::try_from(wanted).map_or(limit, |wanted| wanted.min(limit)),
            0,
        );
        let offset = self.position;
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| LoadError::Read { offset, source })?;
        self.position += bytes.len() as u64;
        Ok(bytes)
    }

    fn recycle(&mut self, bytes: Vec<u8>) {
        self.scratch = bytes;
    }

    /// Loads the kernel: its head decides where everything goes.
    fn kernel(&mut self, section: &Section) -> Result<KernelPlan, LoadError> {
        let head = self.read_scratch(section.size, KernelPlan::head_len(section.size))?;
        self.crc.update(&head);
        self.measurer.update(&head);
        let plan = KernelPlan::parse(&head, section.size)?;
        let too_large = || LoadError::TooLarge {
            what: "the kernel",
            size: section.size,
            ram: self.ram,
        };
        if plan.memory_end > self.ram.min(layout::LOW_RAM_END) {
            return Err(too_large());
        }
        for segment in &plan.segments {
            let in_segment = usize::try_from(segment.file_offset)
                .ok()
                .and_then(|start| head.get(start..));
            let bytes = in_segment.unwrap_or_default();
            let length = usize::try_from(segment.file_len).map_or(bytes.len(), |len| len.min(bytes.len()));
            let copy = |target: &mut [u8]| target.copy_from_slice(&bytes[..length]);
            with_exclusive_bytes(&mut self.memory, segment.guest_address, length, copy)
                .ok_or_else(too_large)?;
        }
        let head_len = head.len() as u64;
        self.recycle(head);
        for segment in &plan.segments {
            let begin = segment.file_offset.max(head_len);
            let end = segment.file_offset + segment.file_len;
            if begin >= end {
                continue;
            }
            self.measure_only(section.offset + begin - self.position)?;
            let address = segment.guest_address + (begin - segment.file_offset);
            self.load_to(address, end - begin, "the kernel")?;
        }
        self.measure_only(section.end() - self.position)?;
        Ok(plan)
    }

    /// Reads the command line and appends what the machine needs.
    fn cmdline(&mut self, section: &Section, kernel: Option<&KernelPlan>) -> Result<Vec<u8>, LoadError> {
        let limit = kernel
            .map_or(usize::MAX, |kernel| kernel.cmdline_max)
            .min(layout::CMDLINE_CAPACITY - 1);
        let arguments = arch::machine_arguments();
        let length = usize::try_from(section.size)
            .unwrap_or(usize::MAX)
            .saturating_add(arguments.len());
        if length > limit {
            return Err(LoadError::CmdlineTooLong { length, limit });
        }
        let mut cmdline = self.read_scratch(section.size, CHUNK)?;
        self.crc.update(&cmdline);
        self.measurer.update(&cmdline);
        // A builder may have kept the newline or NUL at the end of its text file.
        while cmdline.last().is_some_and(|last| matches!(last, b'\n' | b'\0')) {
            cmdline.pop();
        }
        cmdline.extend(arguments.bytes());
        Ok(cmdline)
    }
}

/// The ramdisks on their way into one initramfs.
struct Ramdisks {
    /// Bytes of all of them, each padded to four bytes.
    total: u64,
    /// Start of the initramfs, once the kernel is known.
    start: Option<u64>,
    /// Bytes already used.
    used: u64,
}

impl Ramdisks {
    fn of(contents: &Layout) -> Self {
        let total = contents
            .ramdisks()
            .map(|section| padded(section.size))
            .fold(0, u64::saturating_add);
        Self {
            total,
            start: None,
            used: 0,
        }
    }

    fn load_next(
        &mut self,
        pass: &mut Pass<'_>,
        section: &Section,
        kernel: Option<&KernelPlan>,
    ) -> Result<(), LoadError> {
        let start = match self.start {
            Some(start) => start,
            None => kernel
                .and_then(|kernel| place_initrd(kernel, self.total, pass.ram))
                .ok_or(LoadError::TooLarge {
                    what: "the ramdisks",
                    size: self.total,
                    ram: pass.ram,
                })?,
        };
        self.start = Some(start);
        pass.load_to(start + self.used, section.size, "a ramdisk")?;
        self.used += padded(section.size);
        Ok(())
    }

    fn placed(&self) -> Option<(u64, u64)> {
        self.start
            .filter(|_| self.used > 0)
            .map(|start| (start, self.used))
    }
}

/// The kernel's unpacker looks for the next archive at multiples of four (`init/initramfs.c`).
fn padded(size: u64) -> u64 {
    size.checked_next_multiple_of(4).unwrap_or(u64::MAX)
}

/// The highest place for `size` bytes that the kernel can reach and does not need itself.
fn place_initrd(kernel: &KernelPlan, size: u64, ram: u64) -> Option<u64> {
    let low_end = ram
        .min(layout::LOW_RAM_END)
        .min(kernel.initrd_max.saturating_add(1));
    let below = low_end
        .checked_sub(size)
        .map(|start| start & !(INITRD_ALIGNMENT - 1));
    let below = below.filter(|start| *start >= kernel.memory_end);
    let high = ram
        .checked_sub(layout::LOW_RAM_END)
        .filter(|high| *high >= size && kernel.initrd_above_4g);
    let above = high.map(|high| (layout::HIGH_RAM_START + high - size) & !(INITRD_ALIGNMENT - 1));
    below.or(above.filter(|start| *start >= layout::HIGH_RAM_START))
}
