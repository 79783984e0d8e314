//! The zero page (`struct boot_params`): what a boot loader tells the kernel, at the offsets of
//! `Documentation/arch/x86/zero-page.rst`.

use super::{KernelPlan, layout};

/// Bytes of a zero page.
pub(super) const LEN: usize = 4096;

const EXT_RAMDISK_IMAGE: usize = 0x0c0;
const EXT_RAMDISK_SIZE: usize = 0x0c4;
const E820_ENTRIES: usize = 0x1e8;
const SETUP_HEADER: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY_LEN: usize = 20;

/// "Undefined" loader: no identifier has been assigned to us.
const LOADER_UNDEFINED: u8 = 0xff;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// One line of the memory map.
struct E820 {
    start: u64,
    end: u64,
    kind: u32,
}

/// The zero page for `plan`, `ram` bytes of memory and an initramfs at `(address, length)`.
pub(super) fn build(plan: &KernelPlan, ram: u64, initrd: Option<(u64, u64)>) -> [u8; LEN] {
    let mut page = [0; LEN];
    put(&mut page, SETUP_HEADER, &plan.setup_header);
    put(&mut page, BOOT_FLAG, &0xaa55_u16.to_le_bytes());
    put(&mut page, HEADER_MAGIC, b"HdrS");
    put(&mut page, TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
    put(&mut page, CMD_LINE_PTR, &low_half(layout::CMDLINE));
    if let Some((address, len)) = initrd {
        put(&mut page, RAMDISK_IMAGE, &low_half(address));
        put(&mut page, RAMDISK_SIZE, &low_half(len));
        put(&mut page, EXT_RAMDISK_IMAGE, &low_half(address >> 32));
        put(&mut page, EXT_RAMDISK_SIZE, &low_half(len >> 32));
    }
    let map = memory_map(ram);
    for (index, entry) in map.iter().enumerate() {
        let offset = E820_TABLE + index * E820_ENTRY_LEN;
        put(&mut page, offset, &entry.start.to_le_bytes());
        put(&mut page, offset + 8, &(entry.end - entry.start).to_le_bytes());
        put(&mut page, offset + 16, &entry.kind.to_le_bytes());
    }
    put(&mut page, E820_ENTRIES, &[u8::try_from(map.len()).unwrap_or(0)]);
    page
}

fn memory_map(ram: u64) -> Vec<E820> {
    let mut map = vec![
        E820 {
            start: 0,
            end: layout::MP_TABLE,
            kind: E820_RAM,
        },
        E820 {
            start: layout::MP_TABLE,
            end: layout::RESERVED_END,
            kind: E820_RESERVED,
        },
        E820 {
            start: layout::RESERVED_END,
            end: ram.min(layout::LOW_RAM_END),
            kind: E820_RAM,
        },
    ];
    if let Some(high) = ram.checked_sub(layout::LOW_RAM_END).filter(|high| *high > 0) {
        map.push(E820 {
            start: layout::HIGH_RAM_START,
            end: layout::HIGH_RAM_START + high,
            kind: E820_RAM,
        });
    }
    map
}

/// Every offset is a constant of ours and every length bounded by the parser, so nothing is ever cut.
fn put(page: &mut [u8; LEN], offset: usize, bytes: &[u8]) {
    if let Some(target) = page.get_mut(offset..offset + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

/// The low 32 bits; fields for the high ones are separate.
fn low_half(value: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = value.to_le_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::super::kernel::tests::{bzimage, elf};
    use super::*;

    fn plan(image: &[u8]) -> KernelPlan {
        KernelPlan::parse(image, image.len() as u64).unwrap()
    }

    fn e820(page: &[u8; LEN]) -> Vec<(u64, u64, u32)> {
        (0..usize::from(page[E820_ENTRIES]))
            .map(|index| {
                let entry = &page[E820_TABLE + index * E820_ENTRY_LEN..][..E820_ENTRY_LEN];
                (
                    u64::from_le_bytes(entry[..8].try_into().unwrap()),
                    u64::from_le_bytes(entry[8..16].try_into().unwrap()),
                    u32::from_le_bytes(entry[16..].try_into().unwrap()),
                )
            })
            .collect()
    }

    #[test]
    fn memory_beyond_3_gib_continues_above_4_gib() {
        let page = build(&plan(&bzimage(4, 1024)), 5 << 30, None);

        let map = e820(&page);
        assert_eq!(map[2], (0x10_0000, (3 << 30) - 0x10_0000, E820_RAM));
        assert_eq!(map[3], (4 << 30, 2 << 30, E820_RAM));
    }

    #[test]
    fn memory_up_to_3_gib_leaves_the_gap_empty() {
        let page = build(&plan(&bzimage(4, 1024)), 3 << 30, None);

        assert_eq!(e820(&page).len(), 3);
    }

    #[test]
    fn an_initramfs_above_4_gib_uses_the_extended_fields() {
        let page = build(
            &plan(&elf(0, &[(0x1000, 8, 8, 0x20_0000)])),
            12 << 30,
            Some((0x1_2345_6000, 0x2_0000_0008)),
        );

        assert_eq!(
            page[RAMDISK_IMAGE..RAMDISK_IMAGE + 4],
            0x2345_6000_u32.to_le_bytes()
        );
        assert_eq!(
            page[EXT_RAMDISK_IMAGE..EXT_RAMDISK_IMAGE + 4],
            1_u32.to_le_bytes()
        );
        assert_eq!(page[RAMDISK_SIZE..RAMDISK_SIZE + 4], 8_u32.to_le_bytes());
        assert_eq!(page[EXT_RAMDISK_SIZE..EXT_RAMDISK_SIZE + 4], 2_u32.to_le_bytes());
    }

    #[test]
    fn the_setup_header_of_a_bzimage_is_handed_on() {
        let page = build(&plan(&bzimage(4, 1024)), 1 << 30, None);

        assert_eq!(page[0x206..0x208], 0x20f_u16.to_le_bytes());
        assert_eq!(page[TYPE_OF_LOADER], LOADER_UNDEFINED);
    }
}
