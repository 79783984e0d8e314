//! vsock's queues with chains that no driver would make, with and without a stream whose other end sends.

use super::chains;
use crate::machine::Machine;
use crate::packet::{CREDIT_REQUEST, DATA, REQUEST, RESET, SHUTDOWN};
use crate::random::Random;
use crate::transport::{EVENT_IDX, VERSION_1};
use crate::vsock::{EVENTS, RX, TX, Vsock};

pub(super) fn round(machine: &mut Machine, random: &mut Random) {
    let vsock = &mut machine.vsock;
    if random.once_in(2) {
        vsock.start();
        start_an_echo(vsock, machine.echo);
    } else {
        vsock.start_without_buffers(VERSION_1 | random.pick(&[0, EVENT_IDX]));
    }
    plant_headers(vsock, random, machine.echo);
    for _ in 0..=random.below(8) {
        let queue = random.pick(&[RX, TX, TX, EVENTS]);
        chains::offer(vsock.queue(queue), random, queue != TX);
        vsock
            .transport
            .notify(random.pick(&[queue, queue, RX, TX, 3, u32::MAX]));
        super::wait(random);
    }
}

/// Something that the device writes into what it is offered next.
fn start_an_echo(vsock: &mut Vsock, echo: u32) {
    if let Ok(from) = vsock.open(echo) {
        let mut header = vsock.header(from, echo, DATA);
        header.length = 1024;
        // A device that does not take it is one for the next round.
        let _ = vsock.send(&header, 1024, |index| index.to_le_bytes()[0]);
    }
}

/// Headers that make sense, so that a chain that is taken for a packet leads further.
fn plant_headers(vsock: &Vsock, random: &mut Random, echo: u32) {
    for place in 0..16 {
        let operation = random.pick(&[REQUEST, DATA, CREDIT_REQUEST, SHUTDOWN, RESET]);
        let mut header = vsock.header(0x1_0000 + random.word32() % 64, echo, operation);
        header.length = random.pick(&[0, 1, 4096, 65_536, u32::MAX]);
        header.write(chains::AREA + place * 0x1000);
    }
}
