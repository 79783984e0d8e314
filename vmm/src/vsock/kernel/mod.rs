//! The backend over the parent's own kernel: vhost-vsock moves the bytes, and programs on the parent use `AF_VSOCK`.
//!
//! # Why not vhost-vsock alone
//!
//! On EC2 an enclave's parent is CID 3, and programs in EIFs say so. vhost-vsock knows the host as CID 2 only and drops what a
//! guest sends to any other CID (`vhost_vsock_handle_tx_kick` in drivers/vhost/vsock.c). So it must not see the guest's queues
//! as they are.
//!
//! # Shadow queues
//!
//! ```text
//!   guest memory                     shadow memory                         parent's kernel
//!   transmit queue  ── header ────►  header, CID 3 becomes 2  ──►┐
//!                   ── payload's addresses ─────────────────────►├ ring ──►  vhost-vsock ──►  AF_VSOCK, port P
//!   receive queue   ── buffers' addresses ──────────────────────►│ ring ──►
//!                   ◄─ in the buffer: CID 2 becomes 3  ◄─────────┘      ◄──  vhost-vsock ◄──  AF_VSOCK, our CID
//! ```
//!
//! For each queue of the guest there is a ring of our own, in which we are the driver and vhost-vsock is the device. A chain of
//! the guest becomes one there. Payload is copied once, by the kernel, between guest memory and a socket, as without us, since
//! vhost-vsock reaches guest memory through its memory table. A packet of the guest's has its header copied, 44 bytes into shadow
//! memory, because it is not for us to write to what the guest wants read. A packet for the guest has its header changed where
//! it is, in the guest's buffer, before the guest gets it.
//!
//! # What is trusted
//!
//! Nothing of the guest's. Shadow memory lies where no guest memory is, and an address goes into a shadow ring only if all of it
//! is in guest memory: whatever descriptors say, the kernel is never pointed at the shadow rings or at anything else of this
//! process. Headers of the guest's are copied before they are looked at. Those for the guest lie in its memory, where it may forge
//! them before we look: all that hangs on them is which CID the guest itself is told. That a packet comes from the guest's CID
//! and goes to the host's is checked by the kernel, which drops all others.
//!
//! # Parts
//!
//! ```text
//!   vhost     the ioctls                         active    a turn: both directions, one interrupt
//!   ring      a shadow ring, driver's side       transmit  guest to parent, with the shadow ring in packets
//!   parts     pieces of guest memory             receive   parent to guest, with the shadow ring in buffers
//!   parent    which CID the guest means by "parent", per connection
//! ```

mod active;
mod buffers;
mod packets;
mod parent;
mod parts;
mod receive;
mod ring;
mod transmit;
mod vhost;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use virtio::{Activation, GuestMemory};
use vm_memory::{GuestAddress, GuestRegionMmap, MmapRegion};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use self::active::Active;
use self::parent::SharedCalls;
pub use self::vhost::{Ring, Vhost, VhostVsock};
use super::halves::{Backend, Vsock, VsockWorker};
use crate::log;

/// Lines about faults of the guest or the host that one device writes to the log.
const MOST_COMPLAINTS: u32 = 16;

/// Where shadow memory is in vhost's address space: far above all guest memory, which ends below 2⁴⁶ ([`crate::memory`]). Nothing that
/// begins in guest memory and is as long as a descriptor can say, 4 GiB, ends there.
pub const SHADOW: GuestAddress = GuestAddress(1 << 62);

/// What is in it: both shadow rings.
const PACKETS: GuestAddress = SHADOW;
const BUFFERS: GuestAddress = GuestAddress(SHADOW.0 + packets::BYTES as u64);
const SHADOW_BYTES: usize = (packets::BYTES + buffers::BYTES).next_multiple_of(4096);

/// What outlives a reset.
#[derive(Debug)]
pub struct Endpoints<V> {
    vhost: V,
    /// Guest memory and shadow memory, as vhost has them.
    memory: Arc<GuestMemory>,
    epoll: Epoll,
    complaints: log::Limited,
    /// A guest that resets its device has no more calls for it.
    calls: Mutex<SharedCalls>,
}

/// Both halves of a device.
pub type Halves<V> = (Vsock<Endpoints<V>>, VsockWorker<Endpoints<V>>);

/// Opens the device on `/dev/vhost-vsock`: both halves, inactive.
///
/// # Errors
///
/// `EADDRINUSE` if another guest of this machine has the CID; else what the kernel has against it.
pub fn open(guest_cid: u32, device: File, guest_memory: &GuestMemory) -> io::Result<Halves<VhostVsock>> {
    open_with(guest_cid, guest_memory, |memory| {
        VhostVsock::new(device, guest_cid, memory)
    })
}

/// The same over any vhost.
pub(crate) fn open_with<V: Vhost>(
    guest_cid: u32,
    guest_memory: &GuestMemory,
    vhost: impl FnOnce(Arc<GuestMemory>) -> io::Result<V>,
) -> io::Result<Halves<V>> {
    let mapping = MmapRegion::new(SHADOW_BYTES).map_err(io::Error::other)?;
    let shadow = GuestRegionMmap::new(mapping, SHADOW).map(Arc::new);
    let shadow = shadow.ok_or_else(|| io::Error::other("there is no room for shadow memory"))?;
    let memory = guest_memory.insert_region(shadow);
    let memory = memory.map(Arc::new).map_err(io::Error::other)?;
    let endpoints = Endpoints {
        vhost: vhost(Arc::clone(&memory))?,
        memory,
        epoll: Epoll::new()?,
        complaints: log::Limited::new(MOST_COMPLAINTS),
        calls: Mutex::default(),
    };
    Ok(Vsock::new(guest_cid, endpoints))
}

impl<V> Endpoints<V> {
    /// Has the device woken by what comes into an eventfd. Edge-triggered: nothing has to be read.
    fn watch(&self, event: &impl AsRawFd) -> io::Result<()> {
        self.watch_as(EVENT, event)
    }

    /// Has the device woken by a timer, whose events [`is_timer`] tells from others.
    fn watch_timer(&self, timer: &impl AsRawFd) -> io::Result<()> {
        self.watch_as(TIMER, timer)
    }

    fn watch_as(&self, token: u64, source: &impl AsRawFd) -> io::Result<()> {
        let interest = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, token);
        self.epoll
            .ctl(ControlOperation::Add, source.as_raw_fd(), interest)
    }

    /// Whether the guest may connect to this port of the parent now.
    fn may_call(&self, port: u32) -> bool {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.may_call(port)
    }

    fn forget(&self, event: &impl AsRawFd) {
        // Fails only if it is not watched.
        let _ = self
            .epoll
            .ctl(ControlOperation::Delete, event.as_raw_fd(), EpollEvent::default());
    }
}

/// What the events of the device carry: whether they are of its timer.
const EVENT: u64 = 0;
const TIMER: u64 = 1;

fn is_timer(event: &EpollEvent) -> bool {
    event.data() == TIMER
}

impl<V: Vhost> Backend for Endpoints<V> {
    type Active = Active<V>;

    fn activate(self: &Arc<Self>, activation: Activation) -> io::Result<Active<V>> {
        Active::new(activation, Arc::clone(self))
    }

    fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    fn complaints(&self) -> &log::Limited {
        &self.complaints
    }
}
