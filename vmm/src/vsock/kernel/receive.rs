//! Packets to the guest.

use std::io;
use std::sync::Arc;

use virtio::{ActiveQueue, GuestMemory};
use vm_memory::GuestAddress;

use super::buffers::{Buffers, Offered};
use super::parent::Parent;
use super::parts::{read_header, write_front};
use super::ring::Ring;
use crate::log;
use crate::vsock::halves::TurnError;

/// Buffers taken, and packets handed over, in one turn.
const TURN: usize = 256;

#[derive(Debug)]
pub(super) struct Receiver {
    queue: ActiveQueue,
    buffers: Buffers,
}

impl Receiver {
    /// With a shadow ring at `address` of `shadow`.
    pub(super) fn new(
        queue: ActiveQueue,
        shadow: &Arc<GuestMemory>,
        address: GuestAddress,
    ) -> io::Result<Self> {
        let buffers = Buffers::new(shadow, address, queue.size())?;
        Ok(Self { queue, buffers })
    }

    pub(super) fn queue(&mut self) -> &mut ActiveQueue {
        &mut self.queue
    }

    pub(super) fn ring(&self) -> &Ring {
        self.buffers.ring()
    }

    /// Hands the guest what the kernel has written, and the kernel the buffers that the guest has added. True if there is more.
    pub(super) fn run(
        &mut self,
        memory: &GuestMemory,
        parent: &mut Parent,
        complaints: &log::Limited,
    ) -> Result<bool, TurnError> {
        let more_packets = self.deliver(memory, parent)?;
        self.queue.disable_doorbell()?;
        let more_buffers = self.forward(memory, complaints)?;
        self.buffers.publish()?;
        Ok(more_packets || more_buffers)
    }

    fn deliver(&mut self, memory: &GuestMemory, parent: &mut Parent) -> Result<bool, TurnError> {
        for _ in 0..TURN {
            let filled = match self.buffers.take_filled()? {
                Some(filled) => filled,
                None if self.buffers.ask_for_call()? => continue,
                None => return Ok(false),
            };
            let pieces = || self.buffers.pieces(filled.head);
            let cid = parent.source_cid(|| read_header(memory, pieces()));
            // The source's CID is what a header begins with. All pieces were in guest memory when they were taken, and guest
            // memory does not change its place.
            write_front(memory, pieces(), &cid.to_le_bytes()).ok_or(TurnError::Vhost)?;
            self.queue.push_used(filled.head, filled.written)?;
        }
        Ok(true)
    }

    fn forward(&mut self, memory: &GuestMemory, complaints: &log::Limited) -> Result<bool, TurnError> {
        for _ in 0..TURN {
            let chain = match self.queue.pop()? {
                Some(chain) => chain,
                None if self.queue.enable_doorbell()? => continue,
                None => return Ok(false),
            };
            if self.buffers.add(&self.queue, chain, memory)? == Offered::Unusable {
                complaints.line(format_args!(
                    "vsock: the guest offered a buffer that cannot be used"
                ));
                self.queue.push_used(chain.head(), 0)?;
            }
        }
        Ok(true)
    }
}
