//! Reads and writes of model-specific registers, those that KVM or a processor knows and any others.

use crate::interrupts::{read_msr, write_msr};
use crate::machine::Machine;
use crate::random::Random;

use super::chains::AREA;

/// Registers of one round.
const REGISTERS: u32 = 100;

/// The architectural ones with those of x2APIC; Hyper-V's; KVM's; AMD's.
const RANGES: [(u32, u32); 7] = [
    (0, 0x1000),
    (0x4000_0000, 0x200),
    (0x4b56_4d00, 0x10),
    (0x11, 2),
    (0xc000_0080, 0x100),
    (0xc001_0000, 0x300),
    (0xc001_1000, 0x40),
];

/// x2APIC's interrupt command, which could start this processor anew.
const INTERRUPT_COMMAND: u32 = 0x830;

pub(super) fn round(_: &mut Machine, random: &mut Random) {
    for _ in 0..REGISTERS {
        let (start, length) = random.pick(&RANGES);
        let known = start + random.word32() % length;
        let any = random.word32();
        let register = random.pick(&[known, known, known, any]);
        let value = read_msr(register).unwrap_or(0);
        if register == INTERRUPT_COMMAND {
            continue;
        }
        let flipped = value ^ 1 << random.below(64);
        let any = random.word() | 1 << 45;
        // An address that KVM may write to is one that nobody minds.
        let address = (AREA + random.below(0x1000) * 64) | 1;
        let value = random.pick(&[value, flipped & !(0x3f << 20), 0, address, any, u64::MAX]);
        // Most of them are refused.
        let _ = write_msr(register, value);
    }
}
