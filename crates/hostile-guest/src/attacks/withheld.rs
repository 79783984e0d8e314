//! What the machine does not show, and registers that it must not have either: those that belong to it.

use core::arch::x86_64::{__cpuid, __cpuid_count};

use crate::interrupts::{read_msr, write_msr};
use crate::machine::Machine;
use crate::random::Random;

/// Performance counters of Intel's and AMD's processors and what sets them up, those of nested virtualisation,
/// Hyper-V's, and KVM's page faults and migration.
const REGISTERS: [u32; 22] = [
    0xc1,
    0x186,
    0x309,
    0x345,
    0x38f,
    0x3f1,
    0x480,
    0x4c1,
    0xc000_0301,
    0xc001_0000,
    0xc001_0004,
    0xc001_0200,
    0xc001_0201,
    0xc001_0114,
    0xc001_0117,
    0x4000_0000,
    0x1a6,
    0x600,
    0xc001_1030,
    0x4b56_4d02,
    0x4b56_4d06,
    0x4b56_4d08,
];

/// Bits that are never shown: leaf, register of it (0 to 3 for EAX to EDX), bit.
const FEATURES: [(u32, usize, u32); 14] = [
    (1, 2, 3),            // MONITOR
    (1, 2, 5),            // VMX
    (1, 2, 15),           // PDCM
    (1, 3, 21),           // DS
    (7, 2, 5),            // UMWAIT
    (7, 2, 30),           // SGX's launch control
    (7, 3, 19),           // last branches
    (0x4000_0001, 0, 17), // migration
    (7, 1, 2),            // SGX
    (7, 1, 25),           // processor trace
    (0x8000_0001, 2, 2),  // SVM
    (0x8000_0001, 2, 10), // instruction-based sampling
    (0x8000_0001, 2, 23), // performance counters
    (0x4000_0001, 0, 4),  // page faults of the parent's
];

/// Fails if anything of it is there.
pub(super) fn round(_: &mut Machine, _: &mut Random) {
    for register in REGISTERS {
        let is_refused = read_msr(register).is_err() && write_msr(register, 0).is_err();
        assert!(is_refused, "there is a register {register:#x}");
    }
    for (leaf, register, bit) in FEATURES {
        let words = features(leaf);
        let is_shown = words.get(register).is_some_and(|word| word >> bit & 1 == 1);
        assert!(!is_shown, "leaf {leaf:#x}, register {register}, shows bit {bit}");
    }
}

/// EAX, EBX, ECX and EDX of a leaf's first subleaf; zeroes if there is no such leaf.
fn features(leaf: u32) -> [u32; 4] {
    let last = __cpuid(leaf & 0xffff_0000).eax;
    if leaf > last {
        return [0; 4];
    }
    let found = __cpuid_count(leaf, 0);
    [found.eax, found.ebx, found.ecx, found.edx]
}
