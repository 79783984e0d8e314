//! Page tables that change under the processor: entries with any bits, that lead to themselves, to devices or out of memory.

use crate::interrupts::probe;
use crate::machine::Machine;
use crate::memory;
use crate::processor::{self, LARGE, PRESENT, SPARE_TABLES, WRITABLE};
use crate::random::Random;

/// Where the pages appear, which this kernel does not use otherwise.
const WINDOW: u64 = 128 << 20;

pub(super) fn round(_: &mut Machine, random: &mut Random) {
    let directory = processor::directory_entry(WINDOW);
    let before: u64 = memory::read(directory);
    for _ in 0..64 {
        let any = random.word();
        let bits = any & 0xfff | random.pick(&[0, 1 << 63, 1 << 52, any << 52]);
        let target = target(random);
        let entry = random.pick(&[
            SPARE_TABLES | PRESENT | WRITABLE,
            SPARE_TABLES | PRESENT | WRITABLE,
            (directory & !0xfff) | PRESENT,
            target & !0x1f_ffff | PRESENT | LARGE,
            target | bits,
        ]);
        memory::write(directory, entry);
        let small = SPARE_TABLES + random.below(512) * 8;
        memory::write(small, target | PRESENT | random.pick(&[0, WRITABLE, bits]));
        if random.once_in(2) {
            processor::flush_translations();
        }
        for _ in 0..8 {
            // A page fault is as good as a value.
            let _ = probe(WINDOW + (random.below(0x20_0000) & !7));
            let _ = probe(WINDOW + (small - SPARE_TABLES) / 8 * 0x1000);
        }
    }
    memory::write(directory, before);
    processor::flush_translations();
}

/// Physical addresses: memory, the page tables themselves, devices, far beyond.
fn target(random: &mut Random) -> u64 {
    let page = random.below(0x10_0000) << 12;
    let far = random.word() & 0x000f_ffff_ffff_f000;
    random.pick(&[
        page,
        SPARE_TABLES,
        0xd000_0000,
        0xd000_1000,
        0xfec0_0000,
        0xfee0_0000,
        far,
    ])
}
