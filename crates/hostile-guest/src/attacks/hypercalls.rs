//! Calls of the hypervisor, known and unknown, in the ways of both makers of processors.

use crate::interrupts::{vmcall, vmmcall};
use crate::machine::Machine;
use crate::random::Random;

use super::chains::AREA;

pub(super) fn round(_: &mut Machine, random: &mut Random) {
    for number in 0..64 {
        let number = random.pick(&[number, number, random_high(number)]);
        // KVM writes to some of these addresses.
        let address = AREA + random.below(0x1000) * 64;
        let arguments = [
            random.pick(&[address, 0, 1 << 46, u64::MAX]),
            random.word(),
            random.pick(&[0, 1, u64::MAX]),
        ];
        // Refused or not: what counts is what the host does.
        let _ = vmmcall(number, arguments);
        let _ = vmcall(number, arguments);
    }
}

/// A number that nobody has given to a call.
fn random_high(number: u64) -> u64 {
    number | number << 32 | 1 << 31
}
