//! Where the ramdisks go: end to end, as high in memory as the kernel can reach.

use eif::{Layout, ReadAt, Section};

use super::{LoadError, pass::Pass};
use crate::arch::{KernelPlan, layout};

/// The initramfs starts at a page boundary.
const INITRD_ALIGNMENT: u64 = 4096;

/// The ramdisks on their way into one initramfs.
pub(super) struct Ramdisks {
    /// Bytes of all of them, each padded to four bytes.
    total: u64,
    /// Start of the initramfs, once the kernel is known.
    start: Option<u64>,
    /// Bytes already used.
    used: u64,
}

impl Ramdisks {
    pub(super) fn of(contents: &Layout) -> Self {
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

    pub(super) fn load_next(
        &mut self,
        pass: &mut Pass<'_, impl ReadAt + ?Sized>,
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

    pub(super) fn placed(&self) -> Option<(u64, u64)> {
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
    use proptest::prelude::*;

    use super::*;
    use crate::arch::kernel_images::bzimage;

    const MIB: u64 = 1 << 20;

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
