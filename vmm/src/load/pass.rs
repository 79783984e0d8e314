//! The walk through the file: reads, sums, measures and places section data, each byte once.

use eif::{FileCrc, Header, Layout, Measurements, Measurer, ReadAt, Section};

use super::LoadError;
use crate::{
    arch::{self, KernelPlan, layout},
    memory::{ExclusiveMemory, with_exclusive_bytes},
};

/// Bytes read at a time: large enough that the calls cost nothing, small enough to be hashed from the cache.
const CHUNK: usize = 1 << 20;

/// The one pass, at `position` in the file.
pub(super) struct Pass<'a, F: ?Sized> {
    file: &'a F,
    memory: ExclusiveMemory<'a>,
    /// Bytes of RAM.
    pub(super) ram: u64,
    crc: FileCrc,
    measurer: Measurer,
    position: u64,
    /// For bytes that are not loaded.
    scratch: Vec<u8>,
}

impl<'a, F: ReadAt + ?Sized> Pass<'a, F> {
    /// At the start of a file whose header has been read.
    pub(super) fn new(file: &'a F, memory: ExclusiveMemory<'a>, ram: u64, header: &Header) -> Self {
        Self {
            file,
            memory,
            ram,
            crc: FileCrc::new(header.as_bytes()),
            measurer: Measurer::new(),
            position: 0,
            scratch: Vec::new(),
        }
    }

    /// At the end of the file: what has been measured, unless the file is damaged.
    pub(super) fn finish(self, contents: &Layout) -> Result<Measurements, LoadError> {
        contents.check_crc(self.crc)?;
        Ok(self.measurer.finish())
    }

    /// Enters a section. Its header is known from the table of contents, which checked it.
    pub(super) fn begin(&mut self, section: &Section) {
        self.crc.update(&section.header_bytes());
        self.measurer.begin(section.kind);
        self.position = section.offset;
    }

    /// Reads and sums, without measuring, a section of a kind whose size [`Layout`] has bounded: metadata or signature.
    pub(super) fn keep(&mut self, section: &Section) -> Result<Vec<u8>, LoadError> {
        let bytes = self.read_scratch(section.size, usize::MAX)?;
        self.crc.update(&bytes);
        Ok(bytes)
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
    pub(super) fn load_to(
        &mut self,
        mut address: u64,
        length: u64,
        what: &'static str,
    ) -> Result<(), LoadError> {
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

    /// Up to `limit` of the next `wanted` bytes, in the scratch buffer. [`Self::recycle`] takes it back.
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
    pub(super) fn kernel(&mut self, section: &Section) -> Result<KernelPlan, LoadError> {
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
    pub(super) fn cmdline(&mut self, section: &Section) -> Result<Vec<u8>, LoadError> {
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
