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
            SectionKind::Cmdline => cmdline = pass.cmdline(section)?,
            SectionKind::Ramdisk => ramdisks.load_next(&mut pass, section, kernel.as_ref())?,
            SectionKind::Metadata | SectionKind::Signature => pass.sum_to(section.end())?,
        }
    }
    contents.check_crc(pass.crc)?;
    let kernel = kernel.ok_or(KernelError::Unrecognised([0; 4]))?;
    if cmdline.len() > kernel.cmdline_max {
        return Err(LoadError::CmdlineTooLong {
            length: cmdline.len(),
            limit: kernel.cmdline_max,
        });
    }
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
        let ram = self.ram;
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
                Ok(bytes.len() as u64)
            });
            let read = read
                .ok_or(LoadError::TooLarge {
                    what,
                    size: length,
                    ram,
                })?
                .map_err(|source| LoadError::Read { offset, source })?;
            *position += read;
            address += read;
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
            let bytes = bytes.get(..length).unwrap_or_default();
            self.memory
                .write(segment.guest_address, bytes)
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
    fn cmdline(&mut self, section: &Section) -> Result<Vec<u8>, LoadError> {
        let limit = layout::CMDLINE_CAPACITY - 1;
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

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use eif::{Arch, BuildMetadata, Builder, Metadata};
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::arch::kernel_images::{bzimage, elf};

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const RAM: u64 = 16 * MIB;

    fn metadata() -> Metadata {
        Metadata {
            image_name: String::new(),
            image_version: String::new(),
            build_metadata: BuildMetadata {
                build_time: String::new(),
                build_tool: String::new(),
                build_tool_version: String::new(),
                operating_system: String::new(),
                kernel_version: String::new(),
            },
            docker_info: None,
            custom_metadata: None,
        }
    }

    fn eif_of(kernel: &[u8], cmdline: &str, ramdisks: &[&[u8]]) -> Vec<u8> {
        let mut image = Cursor::new(Vec::new());
        let kernel = &mut Cursor::new(kernel);
        let mut builder =
            Builder::new(&mut image, Arch::X86_64, kernel, cmdline.as_bytes(), &metadata()).unwrap();
        for ramdisk in ramdisks {
            builder.add_ramdisk(&mut Cursor::new(ramdisk)).unwrap();
        }
        builder.finish().unwrap();
        image.into_inner()
    }

    fn file_of(image: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(image).unwrap();
        file
    }

    /// Bytes that differ from one place to the next.
    fn pattern(length: u64) -> Vec<u8> {
        (0..length).map(|index| (index % 251).to_le_bytes()[0]).collect()
    }

    fn read(memory: &GuestMemoryMmap, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    #[test]
    fn memory_files_may_end_anywhere_in_kernel_and_ramdisks() {
        let mut kernel = elf(
            2 * MIB,
            &[
                (KIB, 40 * KIB, 40 * KIB, 2 * MIB - 4 * KIB),
                (41 * KIB, 3 * MIB, 3 * MIB, 5 * MIB),
            ],
        );
        let data = pattern(3 * MIB + 41 * KIB);
        kernel[1024..].copy_from_slice(&data[1024..]);
        let ramdisk = pattern(5 * MIB + 123);
        let file = file_of(&eif_of(&kernel, "quiet", &[b"one", &ramdisk]));
        let cuts = [0, 2 * MIB, 6 * MIB + 4 * KIB, 12 * MIB + 4 * KIB, RAM];
        let ranges: Vec<_> = cuts
            .windows(2)
            .map(|cut| (GuestAddress(cut[0]), usize::try_from(cut[1] - cut[0]).unwrap()))
            .collect();
        let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();

        let loaded = load(&file, ExclusiveMemory::before_start(&memory), RAM).unwrap();

        let first = 2 * MIB - 4 * KIB;
        assert!(read(&memory, first, 40 << 10) == kernel[1 << 10..41 << 10]);
        assert!(read(&memory, 5 * MIB, 3 << 20) == kernel[41 << 10..]);
        let (initrd, length) = loaded.initrd.unwrap();
        assert_eq!(length, 4 + 5 * MIB + 124);
        assert!(read(&memory, initrd + 4, ramdisk.len()) == ramdisk);
    }

    #[test]
    fn a_command_line_that_comes_before_its_kernel_obeys_its_limit_too() {
        let mut kernel = bzimage(4, 1024);
        kernel[0x238..0x23c].copy_from_slice(&100_u32.to_le_bytes());
        let image = eif_of(&kernel, &"x".repeat(90), &[]);
        let inspection = eif::inspect(&image[..], image.len() as u64).unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 64 << 20)]).unwrap();
        let swapped = with_first_sections_swapped(&image, &inspection.layout.sections);

        for image in [image, swapped] {
            let memory = ExclusiveMemory::before_start(&memory);
            let error = load(&file_of(&image), memory, 64 * MIB).unwrap_err();

            assert!(
                matches!(error, LoadError::CmdlineTooLong { limit: 100, .. }),
                "{error}"
            );
        }
    }

    /// `image` with its first two sections in the other order, and the CRC to match.
    fn with_first_sections_swapped(image: &[u8], sections: &[Section]) -> Vec<u8> {
        let range = |section: &Section| {
            let (start, end) = (section.header_offset(), section.end());
            usize::try_from(start).unwrap()..usize::try_from(end).unwrap()
        };
        let (first, second) = (range(&sections[0]), range(&sections[1]));
        let mut header = image[..first.start].to_vec();
        let moved = (first.start + second.len()) as u64;
        header[0x1c + 8..0x1c + 16].copy_from_slice(&moved.to_be_bytes());
        for (index, section) in [&second, &first].into_iter().enumerate() {
            let at = 0x11c + 8 * index;
            header[at..at + 8].copy_from_slice(&((section.len() - 12) as u64).to_be_bytes());
        }
        let rest = &image[second.end..];
        let swapped = [&header, &image[second], &image[first], rest].concat();
        let crc = eif::inspect(&swapped[..], swapped.len() as u64)
            .unwrap()
            .crc_computed;
        let mut swapped = swapped;
        swapped[0x220..0x224].copy_from_slice(&crc.to_be_bytes());
        swapped
    }

    fn kernel(memory_end: u64, initrd_max: u64, initrd_above_4g: bool) -> KernelPlan {
        let image = bzimage(4, 1024);
        let mut plan = KernelPlan::parse(&image, image.len() as u64).unwrap();
        plan.memory_end = memory_end;
        plan.initrd_max = initrd_max;
        plan.initrd_above_4g = initrd_above_4g;
        plan
    }

    proptest! {
        #[test]
        fn an_initramfs_lies_in_ram_above_the_kernel_where_the_kernel_can_reach_it(
            size in 1..8_u64 << 30,
            ram in 2 * MIB..16 << 30,
            kernel_end in MIB..4 << 30,
            initrd_max in prop_oneof![Just(0x7fff_ffff_u64), Just(u64::from(u32::MAX)), 0_u64..1 << 32],
            above_4g: bool,
        ) {
            let plan = kernel(kernel_end, initrd_max, above_4g);
            if let Some(start) = place_initrd(&plan, size, ram) {
                let end = start + size;
                prop_assert_eq!(start % INITRD_ALIGNMENT, 0);
                if start >= layout::HIGH_RAM_START {
                    prop_assert!(above_4g);
                    prop_assert!(end <= layout::HIGH_RAM_START + ram - layout::LOW_RAM_END);
                } else {
                    prop_assert!(start >= kernel_end);
                    prop_assert!(end <= ram.min(layout::LOW_RAM_END));
                    prop_assert!(end - 1 <= initrd_max);
                }
            }
        }
    }
}
