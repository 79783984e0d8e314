//! Lies about credit on a stream that was opened properly: more sent than there is room for, more received than was sent, room
//! for nothing and for everything.

use crate::machine::Machine;
use crate::packet::{CREDIT_REQUEST, CREDIT_UPDATE, DATA, Header, RESET, SHUTDOWN};
use crate::random::Random;

/// Data packets of one round: more than any peer's buffer has room for, as long as they are taken.
const PACKETS: u32 = 192;
const BYTES: u32 = 8000;

pub(super) fn round(machine: &mut Machine, random: &mut Random) {
    let echo = machine.echo;
    let vsock = &mut machine.vsock;
    vsock.start();
    let Ok(from) = vsock.open(echo) else { return };
    let buffer = random.pick(&[0, 1, 65_536, 0x8000_0000, u32::MAX]);
    let lie = random.pick(&[0, 1, 4096, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
    let reads = random.once_in(2);
    let mut forwarded: u32 = 0;
    for _ in 0..random.word32() % PACKETS {
        let operation = random.pick(&[DATA, DATA, DATA, CREDIT_UPDATE, CREDIT_REQUEST]);
        let bytes = if operation == DATA { BYTES } else { 0 };
        forwarded = forwarded.wrapping_add(lie);
        let header = Header {
            buffer,
            forwarded,
            length: bytes,
            ..vsock.header(from, echo, operation)
        };
        if vsock
            .send(&header, bytes, |index| index.to_le_bytes()[0])
            .is_err()
        {
            return;
        }
        if reads {
            vsock.drain();
        }
    }
    let last = random.pick(&[SHUTDOWN, RESET, CREDIT_REQUEST]);
    let header = Header {
        flags: random.pick(&[0, 1, 2, 3, u32::MAX]),
        ..vsock.header(from, echo, last)
    };
    let _ = vsock.send(&header, 0, |_| 0);
}
