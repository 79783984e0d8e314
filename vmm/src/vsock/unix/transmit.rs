//! The transmit queue: packets from the guest.

use virtio::{Access, ActiveQueue, Chain, GuestMemory, GuestSlice, QueueError};
use vsock_device::{HEADER_SIZE, Header};

use super::host::Host;
use super::parts::{copy_out, split};

/// Packets taken in one turn. Each may bring 64 KiB and more, so a turn moves some megabytes at most.
const TURN: usize = 64;

#[derive(Debug)]
pub(super) struct Transmitter {
    queue: ActiveQueue,
    /// There may be packets that nobody has looked at.
    pending: bool,
    /// Descriptors of the packets that were taken since somebody asked.
    taken: usize,
}

/// Pieces of the packet at hand. Kept from packet to packet, for their memory.
#[derive(Default)]
struct Scratch<'m> {
    all: Vec<GuestSlice<'m>>,
    header: Vec<GuestSlice<'m>>,
    payload: Vec<GuestSlice<'m>>,
}

impl Transmitter {
    /// The driver may have added packets before the device was there to see it.
    pub(super) fn new(queue: ActiveQueue) -> Self {
        Self {
            queue,
            pending: true,
            taken: 0,
        }
    }

    pub(super) fn queue(&mut self) -> &mut ActiveQueue {
        &mut self.queue
    }

    /// The doorbell has rung.
    pub(super) fn wake(&mut self) {
        self.pending = true;
    }

    /// Descriptors of the packets that were taken since this was called before.
    pub(super) fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }

    /// Takes a turn's worth of packets. True if there are more.
    pub(super) fn run(&mut self, memory: &GuestMemory, host: &mut Host) -> Result<bool, QueueError> {
        if !self.pending {
            return Ok(false);
        }
        self.queue.disable_doorbell()?;
        let mut scratch = Scratch::default();
        for _ in 0..TURN {
            let chain = match self.queue.pop()? {
                Some(chain) => chain,
                None if self.queue.enable_doorbell()? => continue,
                None => {
                    self.pending = false;
                    return Ok(false);
                }
            };
            scratch.take(&self.queue, chain, memory, host);
            self.taken += scratch.all.len().max(1);
            self.queue.push_used(chain.head(), 0)?;
        }
        Ok(true)
    }
}

impl<'m> Scratch<'m> {
    /// Handles one packet. The header and the payload may be split over descriptors in any way.
    fn take(&mut self, queue: &ActiveQueue, chain: Chain, memory: &'m GuestMemory, host: &mut Host) {
        self.all.clear();
        self.header.clear();
        self.payload.clear();
        let mut header = [0; HEADER_SIZE];
        let Ok(bytes) = queue.collect_parts(chain, Access::Read, memory, &mut self.all) else {
            host.note_fault("a packet whose descriptors cannot be used");
            return;
        };
        split(&self.all, HEADER_SIZE, &mut self.header, &mut self.payload);
        // Read once: what is checked is what is used, whatever the guest writes meanwhile.
        if !copy_out(&self.header, &mut header) {
            host.note_fault("a packet shorter than its header");
            return;
        }
        host.guest_packet(&Header::decode(&header), &self.payload, bytes - HEADER_SIZE);
    }
}
