//! Reads and writes in the hole between low and high memory: interrupt controllers, the devices' windows, and nothing at all.
//!
//! What would start this or another processor anew is left out: that ends the enclave, as it should.

use crate::interrupts;
use crate::machine::Machine;
use crate::memory::{self, REGISTERS};
use crate::random::Random;

/// Accesses of one round.
const ACCESSES: u32 = 100;

const IO_APIC: u64 = 0xfec0_0000;
const LOCAL_APIC: u64 = 0xfee0_0000;

/// Delivery modes SMI and INIT, among others, have these bits.
const DELIVERY: u32 = 0x300;

pub(super) fn round(_: &mut Machine, random: &mut Random) {
    for _ in 0..ACCESSES {
        match random.below(3) {
            0 => local_apic(random),
            1 => io_apic(random),
            _ => anywhere(random),
        }
    }
    interrupts::quiet();
}

fn local_apic(random: &mut Random) {
    let register = LOCAL_APIC + random.below(0x40) * 0x10;
    if random.once_in(3) {
        let _: u32 = memory::read(register + random.pick(&[0, 0, 4, 8]));
    } else {
        memory::write(register, interrupt(random));
    }
}

fn io_apic(random: &mut Random) {
    let any = random.word32();
    memory::write(IO_APIC, random.pick(&[0, 1, 2, 0x10 + any % 0x30, any]));
    if random.once_in(3) {
        let _: u32 = memory::read(IO_APIC + 0x10);
    } else {
        memory::write(IO_APIC + 0x10, interrupt(random));
    }
}

/// A word that may say how an interrupt is delivered: its vector, in the lowest eight bits, is one of an interrupt's, or one that there
/// cannot be (0 to 15). Those between are of exceptions, which this kernel could not tell apart.
fn interrupt(random: &mut Random) -> u32 {
    let word = random.word32() & !DELIVERY;
    if random.once_in(8) {
        word & !0xf0
    } else {
        word | 0x20
    }
}

fn anywhere(random: &mut Random) {
    let size = REGISTERS.end - REGISTERS.start;
    let address = (REGISTERS.start + random.below(size)) & !7;
    if (IO_APIC..LOCAL_APIC + 0x1000).contains(&address) {
        return;
    }
    if random.once_in(2) {
        let _: u64 = memory::read(address);
    } else {
        memory::write(address, random.word());
    }
}
