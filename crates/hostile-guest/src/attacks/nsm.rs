//! The security module's queue: requests of any bytes, and chains that no driver would make.

use super::chains;
use crate::machine::Machine;
use crate::memory;
use crate::queue::{Descriptor, Queue, WRITE};
use crate::random::Random;
use crate::transport::{EVENT_IDX, VERSION_1};

/// Which memory its queue has, after vsock's.
const PLACE: u64 = 3;

/// Where requests and responses are.
const REQUESTS: u64 = chains::AREA;
const RESPONSES: u64 = chains::AREA + 0x1_0000;
const LARGEST: u32 = 0x3000;

/// `"GetRandom"` and the request to describe register 0, in CBOR.
const GET_RANDOM: &[u8] = b"\x69GetRandom";
const DESCRIBE_PCR: &[u8] = b"\xa1\x6bDescribePCR\xa1\x65index\x00";

pub(super) fn round(machine: &mut Machine, random: &mut Random) {
    let nsm = machine.nsm;
    let features = VERSION_1 | random.pick(&[0, EVENT_IDX]);
    while !nsm.negotiate(features) {}
    let mut queue = Queue::new(PLACE, 0, nsm.queue_size(0));
    nsm.set_queue(&queue);
    nsm.go();
    for _ in 0..random.below(16) {
        if random.once_in(3) {
            let device_writes = random.once_in(2);
            chains::offer(&mut queue, random, device_writes);
        } else {
            ask(&mut queue, random);
        }
        nsm.notify(random.pick(&[0, 0, 0, 1]));
        super::wait(random);
    }
    if random.once_in(2) {
        nsm.reset();
    }
}

/// A request and room for its response, both of some size.
fn ask(queue: &mut Queue, random: &mut Random) {
    let bytes = random.pick(&[GET_RANDOM, DESCRIBE_PCR, b"", b"\xff", b"\x9f\x9f\x9f\x9f"]);
    for (address, byte) in (REQUESTS..).zip(bytes) {
        memory::write(address, *byte);
    }
    let known = u32::try_from(bytes.len()).unwrap_or_default();
    let any = random.word32() % (4 * LARGEST);
    let request = Descriptor {
        address: REQUESTS,
        length: random.pick(&[known, known, known, 0, any]),
        ..Descriptor::default()
    };
    let response = Descriptor {
        address: RESPONSES,
        length: random.pick(&[LARGEST, LARGEST, 0, 1, any]),
        flags: WRITE,
        next: 0,
    };
    queue.describe(0, request);
    queue.describe(1, response);
    for head in random.pick(&[[0, 1], [0, 1], [1, 0], [0, 0], [1, 1]]) {
        queue.offer(head);
    }
}
