//! From a pair of chains to a request, and from a response back to the pair.

use std::sync::Arc;

use api::nsm::{MAX_REQUEST, RequestPacket};
use virtio::{Access, ActiveQueue, Chain, GuestMemory, QueueError};
use vm_memory::{Bytes, GuestAddress};

use super::channel::Channel;

/// The exchanges of an active device, one at a time.
#[derive(Debug)]
pub(super) struct Exchanges {
    queue: ActiveQueue,
    memory: Arc<GuestMemory>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// No chain is taken.
    Idle,
    /// The first chain of a pair is taken.
    Half(Request),
    /// Both are.
    Whole(Exchange),
}

/// What the guest asks.
#[derive(Debug)]
struct Request {
    head: u16,
    bytes: Vec<u8>,
}

/// Where the answer goes.
#[derive(Debug)]
struct Room {
    head: u16,
    /// Pieces of guest memory, checked when they are written to.
    parts: Vec<(GuestAddress, u32)>,
}

#[derive(Debug)]
struct Exchange {
    number: u64,
    request: Request,
    room: Room,
    /// Whether the daemon that is connected has been asked.
    asked: bool,
}

impl Exchanges {
    pub(super) fn new(queue: ActiveQueue, memory: Arc<GuestMemory>) -> Self {
        Self {
            queue,
            memory,
            stage: Stage::Idle,
        }
    }

    /// Takes chains as far as a whole pair, and asks the daemon.
    pub(super) fn advance(&mut self, channel: &mut Channel) -> Result<(), QueueError> {
        while !matches!(self.stage, Stage::Whole(_)) {
            match self.queue.pop()? {
                Some(chain) => self.take(chain, channel),
                None if self.queue.enable_doorbell()? => {}
                None => return Ok(()),
            }
        }
        if let Stage::Whole(exchange) = &mut self.stage
            && !exchange.asked
        {
            exchange.asked = channel.send(exchange.packet());
        }
        Ok(())
    }

    /// A daemon has connected that has not heard of the exchange.
    pub(super) fn ask_again(&mut self) {
        if let Stage::Whole(exchange) = &mut self.stage {
            exchange.asked = false;
        }
    }

    /// Returns the pair, if the response belongs to it. A late one, to a guest that has reset the device since, does not.
    pub(super) fn finish(&mut self, number: u64, response: &[u8]) -> Result<(), QueueError> {
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Whole(exchange) if exchange.number == number => {
                let written = exchange.room.fill(&self.memory, response);
                self.queue.push_used(exchange.request.head, 0)?;
                self.queue.push_used(exchange.room.head, written)?;
                self.queue.notify()
            }
            other => {
                self.stage = other;
                Ok(())
            }
        }
    }

    fn take(&mut self, chain: Chain, channel: &mut Channel) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => Stage::Half(Request::read(&self.queue, chain, &self.memory)),
            Stage::Half(request) => Stage::Whole(Exchange {
                number: channel.next_number(),
                request,
                room: Room::of(&self.queue, chain),
                asked: false,
            }),
            whole @ Stage::Whole(_) => whole,
        };
    }
}

impl Request {
    /// Reads one byte more than a request may have, and no further. One that cannot be read is empty, as which it is refused.
    fn read(queue: &ActiveQueue, chain: Chain, memory: &GuestMemory) -> Self {
        let head = chain.head();
        let mut parts = Vec::new();
        let mut bytes = Vec::new();
        if queue
            .collect_parts(chain, Access::Read, memory, &mut parts)
            .is_ok()
        {
            for part in parts {
                let length = part.len().min(MAX_REQUEST + 1 - bytes.len());
                let start = bytes.len();
                bytes.resize(start + length, 0);
                part.copy_to(bytes.get_mut(start..).unwrap_or_default());
            }
        }
        Self { head, bytes }
    }
}

impl Room {
    fn of(queue: &ActiveQueue, chain: Chain) -> Self {
        let head = chain.head();
        let parts = queue
            .descriptors(chain)
            .map_while(Result::ok)
            .filter(|(_, descriptor)| descriptor.access == Access::Write)
            .map(|(_, descriptor)| (descriptor.address, descriptor.length))
            .collect();
        Self { head, parts }
    }

    fn bytes(&self) -> u32 {
        let lengths = self.parts.iter().map(|(_, length)| *length);
        lengths.fold(0, u32::saturating_add)
    }

    /// Writes as much of `response` as there is room for; how many bytes that is.
    fn fill(&self, memory: &GuestMemory, response: &[u8]) -> u32 {
        let mut rest = response;
        let mut written = 0;
        for (address, length) in &self.parts {
            let count = rest.len().min(usize::try_from(*length).unwrap_or(usize::MAX));
            let (part, remainder) = rest.split_at(count);
            if memory.write_slice(part, *address).is_err() {
                break;
            }
            written += part.len();
            rest = remainder;
        }
        u32::try_from(written).unwrap_or(u32::MAX)
    }
}

impl Exchange {
    fn packet(&self) -> RequestPacket<'_> {
        RequestPacket {
            number: self.number,
            room: self.room.bytes(),
            request: &self.request.bytes,
        }
    }
}
