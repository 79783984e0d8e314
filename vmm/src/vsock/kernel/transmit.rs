//! Packets from the guest.

use std::io;
use std::sync::Arc;

use virtio::{ActiveQueue, GuestMemory};
use vm_memory::GuestAddress;

use super::packets::Packets;
use super::parent::Parent;
use super::parts::Packet;
use super::ring::Ring;
use crate::log;
use crate::vsock::halves::TurnError;

/// Packets taken in one turn.
const TURN: usize = 256;

#[derive(Debug)]
pub(super) struct Transmitter {
    queue: ActiveQueue,
    packets: Packets,
    packet: Packet,
    /// Descriptors of the packets that were returned since somebody asked.
    returned: usize,
}

impl Transmitter {
    /// With a shadow ring at `address` of `shadow`.
    pub(super) fn new(
        queue: ActiveQueue,
        shadow: &Arc<GuestMemory>,
        address: GuestAddress,
    ) -> io::Result<Self> {
        Ok(Self {
            queue,
            packets: Packets::new(shadow, address)?,
            packet: Packet::default(),
            returned: 0,
        })
    }

    pub(super) fn queue(&mut self) -> &mut ActiveQueue {
        &mut self.queue
    }

    pub(super) fn ring(&self) -> &Ring {
        self.packets.ring()
    }

    /// Whether the kernel has packets that it has not returned.
    pub(super) fn has_outstanding(&self) -> bool {
        self.packets.has_outstanding()
    }

    /// Descriptors of the packets that were returned since this was called before.
    pub(super) fn take_count(&mut self) -> usize {
        std::mem::take(&mut self.returned)
    }

    /// Returns to the guest what the kernel has taken, and gives the kernel what the guest has sent, but for calls that it may not
    /// make. True if there is more.
    pub(super) fn run(
        &mut self,
        memory: &GuestMemory,
        parent: &mut Parent,
        may_call: impl Fn(u32) -> bool,
        complaints: &log::Limited,
    ) -> Result<bool, TurnError> {
        self.give_back()?;
        self.queue.disable_doorbell()?;
        let more = self.forward(memory, parent, may_call, complaints)?;
        self.packets.publish()?;
        // What the kernel takes without being waited for is returned some time later.
        let again = self.packets.ask_for_late_call()?;
        Ok(more || again)
    }

    fn give_back(&mut self) -> Result<(), TurnError> {
        while let Some(sent) = self.packets.take_sent()? {
            self.returned += usize::from(sent.descriptors);
            self.queue.push_used(sent.guest_head, 0)?;
        }
        Ok(())
    }

    fn forward(
        &mut self,
        memory: &GuestMemory,
        parent: &mut Parent,
        may_call: impl Fn(u32) -> bool,
        complaints: &log::Limited,
    ) -> Result<bool, TurnError> {
        for _ in 0..TURN {
            let chain = match self.queue.pop()? {
                Some(chain) => chain,
                None if self.queue.enable_doorbell()? => continue,
                None => return Ok(false),
            };
            if self.packet.take(&self.queue, chain, memory).is_err() {
                complaints.line(format_args!("vsock: the guest sent a packet that cannot be read"));
                self.drop_packet(chain.head())?;
                continue;
            }
            if !self.packets.has_room_for(self.packet.payload.len()) {
                // The kernel's next call makes room. A chain that never fits does not get this far.
                self.queue.undo_pop();
                return Ok(false);
            }
            if !parent.rewrite_for_kernel(&mut self.packet.header, &may_call) {
                complaints.line(format_args!("vsock: the guest calls the daemon too often"));
                self.drop_packet(chain.head())?;
                continue;
            }
            let packet = &self.packet;
            self.packets.add(chain.head(), &packet.header, &packet.payload)?;
        }
        Ok(true)
    }

    fn drop_packet(&mut self, head: u16) -> Result<(), TurnError> {
        self.returned += 1;
        Ok(self.queue.push_used(head, 0)?)
    }
}
