//! Chains that no driver would make, for any queue: they loop, leave memory, reach for the parent's side of the device, wrap
//! around, are empty, too long or of the wrong direction; and rings whose index jumps.

use crate::memory::SHARED;
use crate::packet::HEADER;
use crate::queue::{Descriptor, INDIRECT, NEXT, Queue, WRITE};
use crate::random::Random;

/// Memory that chains are about, apart from what a well-behaved driver uses.
pub(super) const AREA: u64 = SHARED.start + 0x100_0000;

/// Where the VMM's own memory begins in the address space that vhost knows.
const SHADOW: u64 = 1 << 46;

/// Describes and offers some. `device_writes`: what the device expects.
pub(super) fn offer(queue: &mut Queue, random: &mut Random, device_writes: bool) {
    let heads = match random.below(4) {
        0 => one_in_pieces(queue, random, device_writes),
        1 => a_loop(queue, random),
        _ => anything(queue, random),
    };
    for _ in 0..heads {
        let any = random.word16();
        queue.offer(random.pick(&[0, 1, 2, 255, 256, u16::MAX, any % 256]));
    }
    if random.once_in(4) {
        let jump = random.pick(&[1, 255, 256, 257, 32_768, u16::MAX]);
        queue.set_available(queue.available().wrapping_add(jump));
    }
    if random.once_in(4) {
        queue.set_interrupts(random.word16(), random.word16());
    }
}

/// Descriptors of every kind; how many heads to offer.
fn anything(queue: &Queue, random: &mut Random) -> u64 {
    for number in 0..random.pick(&[1, 4, 32, 256]) {
        let any = random.word16();
        let entry = Descriptor {
            address: address(random),
            length: length(random),
            flags: random.pick(&[0, NEXT, WRITE, NEXT | WRITE, INDIRECT, INDIRECT | NEXT, any]),
            next: random.pick(&[number + 1, number, 0, 255, 256, u16::MAX]),
        };
        queue.describe(number, entry);
    }
    random.below(64) + 1
}

/// A chain that comes back to where it began.
fn a_loop(queue: &Queue, random: &mut Random) -> u64 {
    let count = random.pick(&[1, 2, 3, 255, 256]);
    let write = random.pick(&[0, WRITE]);
    for number in 0..count {
        let entry = Descriptor {
            address: AREA + u64::from(number) * 0x1000,
            length: random.pick(&[0, 1, HEADER, 4096]),
            flags: NEXT | write,
            next: if number + 1 == count { 0 } else { number + 1 },
        };
        queue.describe(number, entry);
    }
    4
}

/// What the device expects, in pieces, some of them empty or of the wrong direction.
fn one_in_pieces(queue: &Queue, random: &mut Random, device_writes: bool) -> u64 {
    let count = random.pick(&[2, 8, 44, 128, 255]);
    let mut address = AREA;
    for number in 0..count {
        let length = random.pick(&[0, 1, 2, 7, 20, HEADER, 512]);
        let wrong = random.once_in(16);
        let write = if device_writes == wrong { 0 } else { WRITE };
        let next = if number + 1 < count { NEXT } else { 0 };
        let entry = Descriptor {
            address,
            length,
            flags: write | next,
            next: number + 1,
        };
        queue.describe(number, entry);
        address += u64::from(length);
    }
    1
}

/// Anywhere but in this kernel.
fn address(random: &mut Random) -> u64 {
    let near = random.below(0x2_0000).wrapping_sub(0x1_0000);
    let far = random.word();
    let inside = AREA + random.below(0x40_0000);
    let in_queues = SHARED.start + random.below(0xc000);
    let around = |place: u64| place.wrapping_add(near);
    random.pick(&[
        inside,
        inside & !0xfff,
        in_queues,
        SHADOW + (near & 0x1_ffff),
        around(SHADOW),
        around(SHADOW << 1),
        around(1 << 63),
        around(0),
        around(3 << 30),
        around(4 << 30),
        around(256 << 20),
        0xd000_0000,
        0xfee0_0000,
        far | 1 << 40,
        u64::MAX,
    ])
}

/// Short enough to stay clear of this kernel, or so long that no memory has it.
fn length(random: &mut Random) -> u32 {
    let short = random.word32() % 0x1_0000;
    random.pick(&[
        0,
        1,
        43,
        HEADER,
        HEADER + 1,
        4096,
        short,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_f000,
        u32::MAX,
    ])
}
