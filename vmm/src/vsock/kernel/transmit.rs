//! Packets from the guest.

use virtio::{Access, ActiveQueue, GuestMemory};

use super::parent::Parent;
use super::parts::{Packet, read_header};
use super::ring::Ring;
use crate::log;
use crate::vsock::halves::TurnError;

/// Packets taken in one turn.
const TURN: usize = 256;

#[derive(Debug)]
pub(super) struct Transmitter {
    queue: ActiveQueue,
    ring: Ring,
    packet: Packet,
    /// Descriptors of the packets that were returned since somebody asked.
    returned: usize,
}

impl Transmitter {
    pub(super) fn new(queue: ActiveQueue, ring: Ring) -> Self {
        Self {
            queue,
            ring,
            packet: Packet::default(),
            returned: 0,
        }
    }

    pub(super) fn queue(&mut self) -> &mut ActiveQueue {
        &mut self.queue
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Descriptors of the packets that were returned since this was called before.
    pub(super) fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.returned)
    }

    /// Returns to the guest what the kernel has taken, and gives the kernel what the guest has sent. True if there is more.
    pub(super) fn run(
        &mut self,
        memory: &GuestMemory,
        parent: &mut Parent,
        complaints: &log::Limited,
    ) -> Result<bool, TurnError> {
        self.give_back(memory)?;
        self.queue.disable_doorbell(memory)?;
        let more = self.forward(memory, parent, complaints)?;
        self.ring.publish()?;
        // What the kernel takes without being waited for is returned some time later.
        let again = self.ring.ask_for_late_call()?;
        Ok(more || again)
    }

    fn give_back(&mut self, memory: &GuestMemory) -> Result<(), TurnError> {
        while let Some(used) = self.ring.take_used()? {
            self.returned += usize::from(used.descriptors);
            self.queue.push_used(memory, used.guest_head, 0)?;
        }
        Ok(())
    }

    fn forward(
        &mut self,
        memory: &GuestMemory,
        parent: &mut Parent,
        complaints: &log::Limited,
    ) -> Result<bool, TurnError> {
        for _ in 0..TURN {
            let chain = match self.queue.pop(memory)? {
                Some(chain) => chain,
                None if self.queue.enable_doorbell(memory)? => continue,
                None => return Ok(false),
            };
            let head = chain.head_index();
            let taken = self.packet.take(chain, Access::Read, memory);
            let header = taken.ok().and_then(|()| read_header(&self.packet.header, memory));
            let Some(mut header) = header else {
                complaints.line(format_args!("vsock: the guest sent a packet that cannot be read"));
                self.returned += 1;
                self.queue.push_used(memory, head, 0)?;
                continue;
            };
            if !self.ring.has_room_for(self.packet.payload.len()) {
                // The kernel's next call makes room. A chain that never fits does not get this far.
                self.queue.undo_pop();
                return Ok(false);
            }
            if !parent.rewrite_for_kernel(&mut header) {
                complaints.line(format_args!("vsock: the guest calls the daemon too often"));
                self.returned += 1;
                self.queue.push_used(memory, head, 0)?;
                continue;
            }
            let slot = self.ring.add(head, &self.packet.payload)?;
            self.ring.set_header(slot, &header)?;
        }
        Ok(true)
    }
}
