//! Where the bytes of a kernel image go: the head of a bzImage or an ELF vmlinux becomes a [`KernelPlan`].
//!
//! Both formats are loaded the same way: ranges of the file, in ascending order, belong at guest-physical addresses,
//! and the rest of the file (setup code, headers, symbols) is measured but not loaded. So the image can be streamed
//! once, from its first byte to its last.
//!
//! - **bzImage** (`Documentation/arch/x86/boot.rst`): boot sector and real-mode setup, then one protected-mode part
//!   whose 64-bit entry is 0x200 bytes into it. The setup header is handed to the kernel in the zero page.
//! - **ELF vmlinux**: each `PT_LOAD` goes to its physical address; the entry point is physical too. There is no setup
//!   header; one is made up.

use super::layout;

/// How much of the image [`KernelPlan::parse`] needs to see: the bzImage setup header or the ELF program headers.
const HEAD_WANTED: usize = 64 * 1024;

/// A range of the image that is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the image, in bytes.
    pub file_offset: u64,
    /// Length in the image, in bytes.
    pub file_len: u64,
    /// Guest-physical address of the first byte.
    pub guest_address: u64,
}

/// How to load a kernel image and enter it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelPlan {
    /// What to load, in ascending file order, not overlapping in the file.
    pub segments: Vec<Segment>,
    /// The 64-bit entry point, guest-physical.
    pub entry: u64,
    /// The first guest-physical address that the kernel does not need for itself while it unpacks and starts.
    pub memory_end: u64,
    /// The last address at which an initramfs byte may be.
    pub initrd_max: u64,
    /// Whether an initramfs above 4 GiB is reachable.
    pub initrd_above_4g: bool,
    /// The longest command line without its NUL, in bytes.
    pub cmdline_max: usize,
    /// The setup header of a bzImage from offset 0x1f1 of its first sector on; empty for an ELF.
    pub(super) setup_header: Vec<u8>,
}

/// Why an image is no kernel that this machine can start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Neither signature was found.
    #[error("the kernel section is neither a bzImage nor an ELF vmlinux (first bytes {0:02x?})")]
    Unrecognised([u8; 4]),
    /// The image ends before the header does.
    #[error("the kernel section ends within its {0}")]
    Truncated(&'static str),
    /// Older than boot protocol 2.12, or built for 32 bits.
    #[error(
        "the bzImage has no 64-bit entry point (boot protocol {version:#06x}, xloadflags {xloadflags:#x})"
    )]
    Not64Bit {
        /// Version field of the setup header.
        version: u16,
        /// The flags field; bit 0 is missing.
        xloadflags: u16,
    },
    /// An ELF file of another kind.
    #[error("the ELF kernel is not a 64-bit little-endian x86-64 executable")]
    ForeignElf,
    /// Segments overlap, are out of order or wrap around.
    #[error("program header {index} of the ELF kernel is inconsistent")]
    BadSegment {
        /// Its position in the program header table.
        index: usize,
    },
    /// No `PT_LOAD` at all.
    #[error("the ELF kernel has nothing to load")]
    Empty,
}

impl KernelPlan {
    /// How many bytes of an image of `size` bytes must be given to [`KernelPlan::parse`].
    pub fn head_len(size: u64) -> usize {
        usize::try_from(size).map_or(HEAD_WANTED, |size| size.min(HEAD_WANTED))
    }

    /// The plan for an image of `size` bytes that begins with `head`.
    pub fn parse(head: &[u8], size: u64) -> Result<Self, KernelError> {
        if head.starts_with(b"\x7fELF") {
            return parse_elf(head, size);
        }
        if bytes_at(head, 0x202) == Some(*b"HdrS") {
            return parse_bzimage(head, size);
        }
        Err(KernelError::Unrecognised(bytes_at(head, 0).unwrap_or_default()))
    }
}

const XLF_KERNEL_64: u16 = 1 << 0;
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;

/// Offset of the 64-bit entry within the protected-mode part.
const ENTRY_64: u64 = 0x200;

/// The field offsets are those of `struct setup_header`; the protocol version that brought xloadflags is 2.12.
fn parse_bzimage(head: &[u8], size: u64) -> Result<KernelPlan, KernelError> {
    const TRUNCATED: KernelError = KernelError::Truncated("bzImage setup header");
    let version = u16_at(head, 0x206).ok_or(TRUNCATED)?;
    let xloadflags = u16_at(head, 0x236).ok_or(TRUNCATED)?;
    if version < 0x20c || xloadflags & XLF_KERNEL_64 == 0 {
        return Err(KernelError::Not64Bit { version, xloadflags });
    }
    let setup_sectors = match head.get(0x1f1).ok_or(TRUNCATED)? {
        0 => 4,
        sectors => u64::from(*sectors),
    };
    let header_end = 0x202 + usize::from(*head.get(0x201).ok_or(TRUNCATED)?);
    let setup_header = head.get(0x1f1..header_end).ok_or(TRUNCATED)?.to_vec();
    let initrd_max = u32_at(head, 0x22c).ok_or(TRUNCATED)?;
    let cmdline_max = u32_at(head, 0x238).ok_or(TRUNCATED)?;
    let preferred = u64_at(head, 0x258).ok_or(TRUNCATED)?;
    let init_size = u64::from(u32_at(head, 0x260).ok_or(TRUNCATED)?);

    let payload = (1 + setup_sectors) * 512;
    let payload_len = size.checked_sub(payload).filter(|len| *len > ENTRY_64);
    let file_len = payload_len.ok_or(KernelError::Truncated("bzImage setup code"))?;
    // The kernel unpacks itself at its preferred address when that is above where it was loaded.
    let unpack_at = preferred.max(layout::KERNEL);
    let memory_end = unpack_at
        .saturating_add(init_size)
        .max(layout::KERNEL.saturating_add(file_len));
    Ok(KernelPlan {
        segments: vec![Segment {
            file_offset: payload,
            file_len,
            guest_address: layout::KERNEL,
        }],
        entry: layout::KERNEL + ENTRY_64,
        memory_end,
        initrd_max: u64::from(initrd_max),
        initrd_above_4g: xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G != 0,
        cmdline_max: usize::try_from(cmdline_max).unwrap_or(usize::MAX),
        setup_header,
    })
}

const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const EM_X86_64: u16 = 62;
const ELF_HEADER_LEN: usize = 64;
const PROGRAM_HEADER_LEN: usize = 56;
const PT_LOAD: u32 = 1;

fn parse_elf(head: &[u8], size: u64) -> Result<KernelPlan, KernelError> {
    let header = head
        .get(..ELF_HEADER_LEN)
        .ok_or(KernelError::Truncated("ELF header"))?;
    if header[4] != ELFCLASS64 || header[5] != ELFDATA2LSB || u16_at(header, 18) != Some(EM_X86_64) {
        return Err(KernelError::ForeignElf);
    }
    let table = usize::try_from(u64_at(header, 32).unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let entry_len = usize::from(u16_at(header, 54).unwrap_or(0));
    let count = usize::from(u16_at(header, 56).unwrap_or(0));
    if entry_len != PROGRAM_HEADER_LEN {
        return Err(KernelError::ForeignElf);
    }
    let table_end = table.checked_add(count * PROGRAM_HEADER_LEN);
    let table = table_end.and_then(|end| head.get(table..end));
    let table = table.ok_or(KernelError::Truncated("ELF program headers"))?;

    let mut segments: Vec<Segment> = Vec::with_capacity(count);
    let mut memory_end = 0;
    for (index, program_header) in table.chunks_exact(PROGRAM_HEADER_LEN).enumerate() {
        if u32_at(program_header, 0) != Some(PT_LOAD) {
            continue;
        }
        let file_end = segments.last().map_or(0, |last| last.file_offset + last.file_len);
        let (segment, end) =
            parse_segment(program_header, file_end, size).ok_or(KernelError::BadSegment { index })?;
        memory_end = end.max(memory_end);
        if segment.file_len > 0 {
            segments.push(segment);
        }
    }
    if segments.is_empty() {
        return Err(KernelError::Empty);
    }
    Ok(KernelPlan {
        segments,
        entry: u64_at(header, 24).unwrap_or(0),
        memory_end,
        initrd_max: u64::from(u32::MAX),
        initrd_above_4g: true,
        cmdline_max: layout::CMDLINE_CAPACITY - 1,
        setup_header: Vec::new(),
    })
}

/// The segment of one `PT_LOAD` and the guest-physical end of its memory image. `None` if it goes backwards in the
/// file, leaves it, wraps around, or would overwrite the boot data below 1 MiB.
fn parse_segment(program_header: &[u8], file_end: u64, size: u64) -> Option<(Segment, u64)> {
    let segment = Segment {
        file_offset: u64_at(program_header, 8)?,
        guest_address: u64_at(program_header, 24)?,
        file_len: u64_at(program_header, 32)?,
    };
    let memory_len = u64_at(program_header, 40)?.max(segment.file_len);
    let in_order = segment.file_offset >= file_end || segment.file_len == 0;
    let in_file = segment.file_offset.checked_add(segment.file_len)? <= size;
    let memory_end = segment.guest_address.checked_add(memory_len)?;
    let clear_of_boot_data = segment.guest_address >= layout::RESERVED_END;
    (in_order && in_file && clear_of_boot_data).then_some((segment, memory_end))
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes_at(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A bzImage with `setup_sectors` and `payload_len` bytes of protected-mode code.
    pub(crate) fn bzimage(setup_sectors: u8, payload_len: usize) -> Vec<u8> {
        let mut image = vec![0; (1 + usize::from(setup_sectors)) * 512 + payload_len];
        image[0x1f1] = setup_sectors;
        image[0x201] = 0x66;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
        image[0x236..0x238].copy_from_slice(&3_u16.to_le_bytes());
        image[0x238..0x23c].copy_from_slice(&2047_u32.to_le_bytes());
        image[0x258..0x260].copy_from_slice(&0x100_0000_u64.to_le_bytes());
        image[0x260..0x264].copy_from_slice(&0x80_0000_u32.to_le_bytes());
        image
    }

    /// An ELF with one `PT_LOAD` per (file offset, file length, memory length, address).
    pub(crate) fn elf(entry: u64, loads: &[(u64, u64, u64, u64)]) -> Vec<u8> {
        let mut image = vec![0; ELF_HEADER_LEN + loads.len() * PROGRAM_HEADER_LEN];
        image[..6].copy_from_slice(b"\x7fELF\x02\x01");
        image[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
        image[24..32].copy_from_slice(&entry.to_le_bytes());
        image[32..40].copy_from_slice(&64_u64.to_le_bytes());
        image[54..56].copy_from_slice(&56_u16.to_le_bytes());
        image[56..58].copy_from_slice(&u16::try_from(loads.len()).unwrap().to_le_bytes());
        for (index, (offset, file_len, memory_len, address)) in loads.iter().enumerate() {
            let header = &mut image[64 + 56 * index..][..56];
            header[..4].copy_from_slice(&PT_LOAD.to_le_bytes());
            header[8..16].copy_from_slice(&offset.to_le_bytes());
            header[24..32].copy_from_slice(&address.to_le_bytes());
            header[32..40].copy_from_slice(&file_len.to_le_bytes());
            header[40..48].copy_from_slice(&memory_len.to_le_bytes());
        }
        let end = loads.iter().map(|load| load.0 + load.1).max().unwrap_or(0);
        image.resize(image.len().max(usize::try_from(end).unwrap()), 0);
        image
    }

    fn parse(image: &[u8]) -> Result<KernelPlan, KernelError> {
        let size = image.len() as u64;
        KernelPlan::parse(&image[..KernelPlan::head_len(size)], size)
    }

    #[test]
    fn a_bzimage_is_loaded_behind_its_setup_code_and_entered_in_64_bit_mode() {
        let plan = parse(&bzimage(7, 4096)).unwrap();

        let expected = Segment {
            file_offset: 8 * 512,
            file_len: 4096,
            guest_address: 0x10_0000,
        };
        assert_eq!(plan.segments, [expected]);
        assert_eq!(plan.entry, 0x10_0200);
        assert_eq!(plan.memory_end, 0x180_0000);
        assert_eq!(plan.initrd_max, 0x7fff_ffff);
    }

    #[test]
    fn a_bzimage_with_zero_setup_sectors_has_four_as_the_protocol_says() {
        let mut image = bzimage(4, 1024);
        image[0x1f1] = 0;

        assert_eq!(parse(&image).unwrap().segments[0].file_offset, 5 * 512);
    }

    #[test]
    fn a_32_bit_bzimage_is_refused() {
        let mut image = bzimage(7, 4096);
        image[0x236] = 0;

        assert_eq!(
            parse(&image).unwrap_err(),
            KernelError::Not64Bit {
                version: 0x20f,
                xloadflags: 0
            }
        );
    }

    #[test]
    fn an_elf_is_loaded_segment_by_segment() {
        let plan = parse(&elf(
            0x100_0000,
            &[
                (0x1000, 0x200, 0x200, 0x100_0000),
                (0x2000, 0x10, 0x9000, 0x110_0000),
            ],
        ));

        let plan = plan.unwrap();
        assert_eq!(plan.entry, 0x100_0000);
        assert_eq!(plan.segments.len(), 2);
        assert_eq!(plan.memory_end, 0x110_9000);
    }

    #[test]
    fn elf_segments_that_go_backwards_or_leave_the_file_or_hit_boot_data_are_refused() {
        let backwards = elf(
            0,
            &[(0x2000, 0x10, 0x10, 0x20_0000), (0x1000, 0x10, 0x10, 0x30_0000)],
        );
        let mut beyond = elf(0, &[(0x1000, 0x10, 0x10, 0x20_0000)]);
        beyond.truncate(0x100f);
        let low = elf(0, &[(0x1000, 0x10, 0x10, 0x7000)]);
        let wrapping = elf(0, &[(0x1000, 0x10, u64::MAX, 0x20_0000)]);

        assert_eq!(
            parse(&backwards).unwrap_err(),
            KernelError::BadSegment { index: 1 }
        );
        for image in [beyond, low, wrapping] {
            assert_eq!(parse(&image).unwrap_err(), KernelError::BadSegment { index: 0 });
        }
    }

    #[test]
    fn something_else_is_named_by_its_first_bytes() {
        assert_eq!(
            parse(b"not a kernel").unwrap_err(),
            KernelError::Unrecognised(*b"not ")
        );
        assert_eq!(parse(b"").unwrap_err(), KernelError::Unrecognised([0; 4]));
    }

    proptest! {
        #[test]
        fn no_head_panics_and_every_plan_stays_within_the_image(
            seed in prop::collection::vec(any::<u8>(), 0..1024),
            kind in 0..3,
            edits in prop::collection::vec((0_usize..1024, any::<u8>()), 0..16),
        ) {
            let mut image = match kind {
                0 => seed,
                1 => bzimage(3, 600),
                _ => elf(0x100_0000, &[(0x200, 0x100, 0x300, 0x100_0000), (0x300, 0x10, 0x10, 0x110_0000)]),
            };
            for (offset, value) in edits {
                if let Some(byte) = image.get_mut(offset) {
                    *byte = value;
                }
            }
            if let Ok(plan) = parse(&image) {
                let mut file_end = 0;
                for segment in plan.segments {
                    prop_assert!(segment.file_offset >= file_end);
                    file_end = segment.file_offset + segment.file_len;
                    prop_assert!(file_end <= image.len() as u64);
                    prop_assert!(segment.guest_address >= layout::RESERVED_END);
                }
            }
        }
    }
}
