//! Reads and writes of every width all over the register windows, those of the virtio devices and the page after them.

use crate::machine::Machine;
use crate::memory;
use crate::random::Random;

/// Accesses of one round.
const ACCESSES: u32 = 200;

pub(super) fn round(machine: &mut Machine, random: &mut Random) {
    access_registers([machine.vsock.transport.base(), machine.nsm.base()], random);
}

/// Likewise, where the devices' windows are known.
pub(crate) fn access_registers([vsock, nsm]: [u64; 2], random: &mut Random) {
    for _ in 0..ACCESSES {
        let offset = match random.below(3) {
            0 => random.below(0x100),
            1 => 0x100 + random.below(0x20),
            _ => random.below(0x1000),
        };
        access(random.pick(&[vsock, nsm, nsm + 0x1000]) + offset, random);
    }
}

/// One access, aligned to its own width.
fn access(address: u64, random: &mut Random) {
    let word = random.word() & random.pick(&[0, 1, 0xf, 0xff, u64::MAX]);
    let [byte, .., _] = word.to_le_bytes();
    let short = u16::from(byte) << random.pick(&[0, 8]);
    let long = u32::try_from(word >> 32).unwrap_or_default() | u32::from(byte);
    match (random.below(4), random.once_in(2)) {
        (0, true) => memory::write(address, byte),
        (1, true) => memory::write(address & !1, short),
        (2, true) => memory::write(address & !3, long),
        (_, true) => memory::write(address & !7, word),
        (0, false) => _ = memory::read::<u8>(address),
        (1, false) => _ = memory::read::<u16>(address & !1),
        (2, false) => _ = memory::read::<u32>(address & !3),
        (_, false) => _ = memory::read::<u64>(address & !7),
    }
}
