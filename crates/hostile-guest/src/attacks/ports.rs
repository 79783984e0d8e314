//! Reads and writes of every width at I/O ports, those of the machine's devices first.

use crate::interrupts;
use crate::machine::Machine;
use crate::processor::{self, port_read, port_write};
use crate::random::Random;

use super::chains::AREA;

/// Accesses of one round.
const ACCESSES: u32 = 200;

/// PICs, PIT, keyboard controller, clock, PCI, serial port, and what other machines have.
const KNOWN: [u16; 16] = [
    0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x80, 0x92, 0xa0, 0x3f8, 0x4d0, 0x510, 0xcf8, 0x5658,
];

pub(super) fn round(_: &mut Machine, random: &mut Random) {
    for _ in 0..ACCESSES {
        let any = random.word16();
        let known = random.pick(&KNOWN) + random.word16() % 8;
        let port = random.pick(&[any, known, known, known]);
        access(port, random);
    }
    interrupts::quiet();
}

fn access(port: u16, random: &mut Random) {
    let word = random.word32() & random.pick(&[u32::MAX, 0xff, 0x7f, 0]);
    let [byte, ..] = word.to_le_bytes();
    let short = u16::from(byte) << random.pick(&[0, 8]);
    // Each byte of one leaves the guest.
    let count = random.pick(&[1, 2, 16, 64]);
    // That would be the keyboard controller's reset.
    let resets = (0x61..=0x64).contains(&port);
    match random.below(8) {
        0 if byte != 0xfe => port_write(port, byte),
        1 if !resets => port_write(port, short),
        2 if !resets => port_write(port, word),
        3 => _ = port_read::<u8>(port),
        4 => _ = port_read::<u16>(port),
        5 => _ = port_read::<u32>(port),
        6 if !resets => processor::port_write_string(port, AREA, count),
        _ => processor::port_read_string(port, AREA + 0x1000, count),
    }
}
