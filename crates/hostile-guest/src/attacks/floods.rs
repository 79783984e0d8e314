//! Thousands of packets of one kind: streams that are asked for and never used, at a port where somebody listens, where nobody
//! does, and at the daemon's; ends of streams that there never were.

use crate::machine::Machine;
use crate::packet::{CREDIT_REQUEST, DATA, Header, REQUEST, RESET, RESPONSE, SHUTDOWN};
use crate::random::Random;

/// Packets of one round.
const PACKETS: u32 = 1500;

/// A port of the parent that nobody listens on.
const NOBODY: u32 = 4321;
/// The daemon's, for heartbeats and for the ends of applications.
const DAEMON: [u32; 2] = [9000, 9001];

pub(super) fn round(machine: &mut Machine, random: &mut Random) {
    let echo = machine.echo;
    let vsock = &mut machine.vsock;
    vsock.start();
    let operation = random.pick(&[
        REQUEST,
        REQUEST,
        REQUEST,
        RESET,
        SHUTDOWN,
        CREDIT_REQUEST,
        RESPONSE,
        DATA,
    ]);
    let to = random.pick(&[echo, echo, NOBODY, DAEMON[0], DAEMON[1]]);
    // An answer that nobody takes stays where it is.
    let reads = random.once_in(2);
    let same_port = random.once_in(4);
    let first = random.word32();
    for number in 0..PACKETS {
        let from = if same_port {
            first
        } else {
            first.wrapping_add(number)
        };
        let header = Header {
            flags: 3,
            ..vsock.header(from, to, operation)
        };
        if vsock.send(&header, 0, |_| 0).is_err() {
            return;
        }
        if reads {
            vsock.drain();
        }
    }
}
