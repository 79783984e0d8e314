//! Packets to the guest.

use virtio::{Access, ActiveQueue, GuestMemory};

use super::parent::Parent;
use super::parts::{Packet, Part, write_header};
use super::ring::{Ring, SIZE};
use crate::log;
use crate::vsock::halves::TurnError;

/// Buffers taken, and packets handed over, in one turn.
const TURN: usize = 256;

#[derive(Debug)]
pub(super) struct Receiver {
    queue: ActiveQueue,
    ring: Ring,
    /// By the slot of a chain: where the guest wants the header.
    headers: Vec<Vec<Part>>,
    buffer: Packet,
}

impl Receiver {
    pub(super) fn new(queue: ActiveQueue, ring: Ring) -> Self {
        Self {
            queue,
            ring,
            headers: vec![Vec::new(); SIZE.into()],
            buffer: Packet::default(),
        }
    }

    pub(super) fn queue(&mut self) -> &mut ActiveQueue {
        &mut self.queue
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Hands the guest what the kernel has written, and the kernel the buffers that the guest has added. True if there is more.
    pub(super) fn run(
        &mut self,
        memory: &GuestMemory,
        parent: &mut Parent,
        complaints: &log::Limited,
    ) -> Result<bool, TurnError> {
        let more_packets = self.deliver(memory, parent)?;
        self.queue.disable_doorbell(memory)?;
        let more_buffers = self.forward(memory, complaints)?;
        self.ring.publish()?;
        Ok(more_packets || more_buffers)
    }

    fn deliver(&mut self, memory: &GuestMemory, parent: &mut Parent) -> Result<bool, TurnError> {
        for _ in 0..TURN {
            let used = match self.ring.take_used()? {
                Some(used) => used,
                None if self.ring.ask_for_call()? => continue,
                None => return Ok(false),
            };
            let mut header = self.ring.header(used.slot)?;
            parent.rewrite_for_guest(&mut header);
            let places = self.headers.get(used.slot.index()).map_or(&[][..], Vec::as_slice);
            // Was in guest memory when it was taken, and guest memory does not change its place.
            write_header(&header, places, memory).ok_or(TurnError::Vhost)?;
            self.queue.push_used(memory, used.guest_head, used.written)?;
        }
        Ok(true)
    }

    fn forward(&mut self, memory: &GuestMemory, complaints: &log::Limited) -> Result<bool, TurnError> {
        for _ in 0..TURN {
            let chain = match self.queue.pop(memory)? {
                Some(chain) => chain,
                None if self.queue.enable_doorbell(memory)? => continue,
                None => return Ok(false),
            };
            let head = chain.head_index();
            if self.buffer.take(chain, Access::Write, memory).is_err() {
                complaints.line(format_args!(
                    "vsock: the guest offered a buffer that cannot be used"
                ));
                self.queue.push_used(memory, head, 0)?;
                continue;
            }
            if !self.ring.has_room_for(self.buffer.payload.len()) {
                self.queue.undo_pop();
                return Ok(false);
            }
            let slot = self.ring.add(head, &self.buffer.payload)?;
            if let Some(places) = self.headers.get_mut(slot.index()) {
                std::mem::swap(places, &mut self.buffer.header);
            }
        }
        Ok(true)
    }
}
