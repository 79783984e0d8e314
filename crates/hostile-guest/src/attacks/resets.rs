//! The device is reset, or half reset, while data are under way; features and queues are agreed on in ways that make no sense.

use crate::machine::Machine;
use crate::packet::{DATA, REQUEST};
use crate::random::Random;
use crate::transport::{EVENT_IDX, VERSION_1};
use crate::vsock::{RX, TX};

const STATUS: u64 = 0x70;
const QUEUE_SELECT: u64 = 0x30;
const QUEUE_READY: u64 = 0x44;

pub(super) fn round(machine: &mut Machine, random: &mut Random) {
    let echo = machine.echo;
    let vsock = &mut machine.vsock;
    vsock.start();
    let from = vsock.open(echo).unwrap_or(1);
    for number in 0..random.word32() % 64 {
        let mut header = vsock.header(from, echo, random.pick(&[DATA, DATA, REQUEST]));
        header.length = 4096;
        if vsock
            .send(&header, 4096, |index| index.wrapping_add(number).to_le_bytes()[0])
            .is_err()
        {
            break;
        }
    }
    let transport = vsock.transport;
    for _ in 0..random.below(32) {
        match random.below(6) {
            0 => transport.write(STATUS, 0),
            1 => transport.write(STATUS, random.word32() & 0xff),
            2 => {
                transport.write(QUEUE_SELECT, random.pick(&[0, 1, 2, 3, u32::MAX]));
                transport.write(QUEUE_READY, random.pick(&[0, 1, 2]));
            }
            3 => {
                let any = random.word();
                let features = random.pick(&[0, EVENT_IDX, VERSION_1, u64::MAX, any]);
                if transport.negotiate(features) {
                    queues_of_any_kind(machine.vsock.transport, random);
                }
            }
            4 => vsock_starts_again(machine),
            _ => transport.notify(random.pick(&[RX, TX, 2, 3, 0x1_0000])),
        }
    }
}

fn vsock_starts_again(machine: &mut Machine) {
    machine.vsock.start_without_buffers(VERSION_1);
}

/// Sizes and addresses, then DRIVER_OK whatever they are.
fn queues_of_any_kind(transport: crate::transport::Transport, random: &mut Random) {
    for queue in 0..random.word32() % 5 {
        transport.write(QUEUE_SELECT, queue);
        transport.write(
            0x38,
            random.pick(&[0, 1, 3, 16, 256, 257, 32_768, 65_536, u32::MAX]),
        );
        for register in [0x80, 0x90, 0xa0] {
            // In memory that devices see, so that a queue that is accepted harms nobody else.
            let address = random.pick(&[
                0,
                0x0200_0000,
                0x0200_0001,
                0x0210_0000,
                0x03ff_fff0,
                0xd000_0000,
                u32::MAX,
            ]);
            transport.write(register, address);
            transport.write(
                register + 4,
                random.pick(&[0, 0, 0, 1, 0x4000, 0x8000_0000, u32::MAX]),
            );
        }
        transport.write(QUEUE_READY, 1);
    }
    transport.go();
    (0..4).for_each(|queue| transport.notify(queue));
}
