//! Packets with whatever may be in a field.

use crate::machine::Machine;
use crate::packet::{Header, STREAM};
use crate::random::Random;
use crate::vsock::PARENT;

/// Ports that somebody of the parent's or of other machines may have.
const PORTS: [u32; 8] = [0, 1, 22, 7000, 9000, 9001, 0x7fff_ffff, u32::MAX];

pub(super) fn round(machine: &mut Machine, random: &mut Random) {
    let echo = machine.echo;
    let vsock = &mut machine.vsock;
    vsock.start();
    let stream = if random.once_in(2) {
        vsock.open(echo).ok()
    } else {
        None
    };
    for _ in 0..64 {
        let header = header(random, vsock.cid, stream.unwrap_or(0x1_0001), echo);
        let bytes = match random.below(4) {
            0 => header.length.min(8000),
            1 => random.word32() % 4096,
            _ => 0,
        };
        if vsock
            .send(&header, bytes, |index| index.to_le_bytes()[0])
            .is_err()
        {
            return;
        }
        if random.once_in(4) {
            vsock.drain();
        }
    }
    super::wait(random);
}

fn header(random: &mut Random, cid: u64, from: u32, echo: u32) -> Header {
    let [cid_a, cid_b] = [random.word(), random.word() & 0xffff_ffff];
    let [port_a, port_b] = [random.pick(&PORTS), random.word32()];
    // Most of it right most of the time: nobody looks at the rest of a packet from the wrong machine.
    let right = |random: &mut Random| !random.once_in(8);
    let words = [random.word32(), random.word32(), random.word32()];
    Header {
        src_cid: if right(random) {
            cid
        } else {
            random.pick(&[0, 1, 2, 3, 16, 17, 18, cid_a, cid_b, u64::MAX])
        },
        dst_cid: if right(random) {
            PARENT
        } else {
            random.pick(&[0, 1, 2, cid, 16, 17, 18, cid_a, cid_b, u64::MAX])
        },
        src_port: random.pick(&[from, from, 0x1_0000 + words[0] % 64, port_b]),
        dst_port: random.pick(&[echo, echo, port_a, port_b]),
        length: random.pick(&[0, 0, 1, 4096, 8000, 65_536, 0x7fff_ffff, u32::MAX]),
        socket_type: if right(random) {
            STREAM
        } else {
            random.pick(&[0, 2, 3, u16::MAX])
        },
        operation: random.pick(&[1, 2, 3, 4, 5, 6, 7, 5, 0, 8, 0x100, u16::MAX]),
        flags: random.pick(&[0, 1, 2, 3, 4, words[0], u32::MAX]),
        buffer: random.pick(&[0, 1, 4096, 65_536, 0x7fff_ffff, words[1], u32::MAX]),
        forwarded: random.pick(&[0, 1, 4096, 0x7fff_ffff, words[2], u32::MAX]),
    }
}
