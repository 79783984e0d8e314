//! The receive queue: packets for the guest.
//!
//! Linux offers buffers of about 4 KiB. Reading a stream into one buffer at a time would cost a system call for each, so one
//! read fills as many buffers as the connection's turn allows; each then gets the header of a packet of its own.

use std::ops::Range;

use virtio::{Access, ActiveQueue, GuestMemory, GuestSlice, QueueError};
use vsock_device::{ConnectionId, HEADER_SIZE, Outgoing};

use super::host::Host;
use super::parts::{copy_in, split};

/// Buffers filled in one turn of the device.
const TURN: usize = 256;
/// What one connection sends before it is the next one's turn, in bytes and in buffers.
const LARGEST_READ: usize = 64 << 10;
const MOST_BUFFERS: usize = 32;

#[derive(Debug)]
pub(super) struct Receiver {
    queue: ActiveQueue,
    /// The guest has no buffer left. It rings the doorbell when it has.
    starved: bool,
}

/// Buffers that the guest has offered, taken but not yet filled.
#[derive(Default)]
struct Buffers<'m> {
    taken: Vec<Buffer>,
    /// Room for the headers of all buffers.
    headers: Vec<GuestSlice<'m>>,
    /// Room for the payload of all buffers, in order.
    payload: Vec<GuestSlice<'m>>,
    /// Bytes in `payload`.
    capacity: usize,
    scratch: Vec<GuestSlice<'m>>,
}

struct Buffer {
    head: u16,
    /// Its part of [`Buffers::headers`].
    header: Range<usize>,
    capacity: usize,
}

/// What came of looking for a buffer.
enum First {
    Taken,
    /// The guest has none, and will ring when it has.
    None,
    /// There were only bad ones, and it is time for something else.
    Later,
}

impl Receiver {
    pub(super) fn new(queue: ActiveQueue) -> Self {
        Self {
            queue,
            starved: false,
        }
    }

    pub(super) fn queue(&mut self) -> &mut ActiveQueue {
        &mut self.queue
    }

    /// The doorbell has rung.
    pub(super) fn wake(&mut self) {
        self.starved = false;
    }

    /// Fills a turn's worth of buffers. True if there is more to send and room for it.
    pub(super) fn run(&mut self, memory: &GuestMemory, host: &mut Host) -> Result<bool, QueueError> {
        if self.starved || !host.has_outgoing() {
            return Ok(false);
        }
        self.queue.disable_doorbell()?;
        let mut buffers = Buffers::default();
        let mut filled = 0;
        while host.has_outgoing() {
            if filled >= TURN {
                return Ok(true);
            }
            buffers.clear();
            match self.take_first(memory, &mut buffers)? {
                First::Taken => {}
                First::None => {
                    self.starved = true;
                    return Ok(false);
                }
                First::Later => return Ok(true),
            }
            filled += match host.next_outgoing() {
                Some(Outgoing::Packet(header)) => {
                    buffers.write_header(0, &header.encode());
                    self.give_back(&buffers, &[0])?
                }
                Some(Outgoing::Data { id, limit }) => {
                    self.send_data(memory, host, &mut buffers, id, limit as usize)?
                }
                None => self.give_back(&buffers, &[])?,
            };
        }
        Ok(false)
    }

    /// Reads from the stream of `id` into as many buffers as needed and there are. Returns how many were filled, at least one:
    /// a connection that has nothing costs a turn as well.
    fn send_data<'m>(
        &mut self,
        memory: &'m GuestMemory,
        host: &mut Host,
        buffers: &mut Buffers<'m>,
        id: ConnectionId,
        limit: usize,
    ) -> Result<usize, QueueError> {
        let wanted = limit.min(LARGEST_READ);
        while buffers.capacity < wanted && buffers.taken.len() < MOST_BUFFERS {
            if !self.take_another(memory, buffers)? {
                break;
            }
        }
        let mut left = host.read(id, &buffers.payload, wanted.min(buffers.capacity));
        let mut lengths = Vec::with_capacity(buffers.taken.len());
        for index in 0..buffers.taken.len() {
            let length = buffers.capacity_of(index).min(left);
            let Some(header) = (length > 0).then(|| host.data_packet(id, length)).flatten() else {
                break;
            };
            buffers.write_header(index, &header.encode());
            lengths.push(length);
            left -= length;
        }
        self.give_back(buffers, &lengths).map(|filled| filled.max(1))
    }

    /// Takes a buffer, past those that are no good, which go back empty.
    fn take_first<'m>(
        &mut self,
        memory: &'m GuestMemory,
        buffers: &mut Buffers<'m>,
    ) -> Result<First, QueueError> {
        for _ in 0..TURN {
            let chain = match self.queue.pop()? {
                Some(chain) => chain,
                None if self.queue.enable_doorbell()? => continue,
                None => return Ok(First::None),
            };
            let head = chain.head();
            buffers.scratch.clear();
            let bytes = self
                .queue
                .collect_parts(chain, Access::Write, memory, &mut buffers.scratch)
                .unwrap_or(0);
            if buffers.push(head, bytes) {
                return Ok(First::Taken);
            }
            self.queue.push_used(head, 0)?;
        }
        Ok(First::Later)
    }

    /// Takes one more buffer, unless there is none or it is no good: that one is left for later, because those taken before it
    /// may have to be put back.
    fn take_another<'m>(
        &mut self,
        memory: &'m GuestMemory,
        buffers: &mut Buffers<'m>,
    ) -> Result<bool, QueueError> {
        let Some(chain) = self.queue.pop()? else {
            return Ok(false);
        };
        let head = chain.head();
        buffers.scratch.clear();
        let bytes = self
            .queue
            .collect_parts(chain, Access::Write, memory, &mut buffers.scratch)
            .unwrap_or(0);
        let good = buffers.push(head, bytes);
        if !good {
            self.queue.undo_pop();
        }
        Ok(good)
    }

    /// Returns the first buffers to the guest, with headers and payloads of `lengths`, and puts the rest back. Returns how many
    /// were returned.
    fn give_back(&mut self, buffers: &Buffers<'_>, lengths: &[usize]) -> Result<usize, QueueError> {
        for (buffer, length) in buffers.taken.iter().zip(lengths) {
            let written = u32::try_from(HEADER_SIZE + length).unwrap_or(u32::MAX);
            self.queue.push_used(buffer.head, written)?;
        }
        for _ in lengths.len()..buffers.taken.len() {
            self.queue.undo_pop();
        }
        Ok(lengths.len())
    }
}

impl Buffers<'_> {
    fn clear(&mut self) {
        self.taken.clear();
        self.headers.clear();
        self.payload.clear();
        self.capacity = 0;
    }

    /// Adds the chain that lies in `scratch`, if it has room for a header and something behind it.
    fn push(&mut self, head: u16, bytes: usize) -> bool {
        if bytes <= HEADER_SIZE {
            return false;
        }
        let first = self.headers.len();
        split(&self.scratch, HEADER_SIZE, &mut self.headers, &mut self.payload);
        let capacity = bytes - HEADER_SIZE;
        self.capacity += capacity;
        self.taken.push(Buffer {
            head,
            header: first..self.headers.len(),
            capacity,
        });
        true
    }

    fn capacity_of(&self, index: usize) -> usize {
        self.taken.get(index).map_or(0, |buffer| buffer.capacity)
    }

    fn write_header(&self, index: usize, header: &[u8; HEADER_SIZE]) {
        let parts = self
            .taken
            .get(index)
            .and_then(|buffer| self.headers.get(buffer.header.clone()));
        copy_in(parts.unwrap_or_default(), header);
    }
}
