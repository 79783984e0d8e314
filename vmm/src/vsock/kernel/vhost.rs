//! The ioctls of `/dev/vhost-vsock` (`include/uapi/linux/vhost.h` and `vhost_types.h`), and nothing else of it.

#![expect(unsafe_code, reason = "vhost's ioctls have no safe form")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use libc::c_ulong;
use virtio::GuestMemory;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_ior_nr, ioctl_iow_nr};

/// One of our rings, where vhost finds it in its memory.
#[derive(Debug)]
pub struct Ring<'a> {
    /// Descriptors, a power of two.
    pub size: u16,
    /// Where the descriptor table is.
    pub descriptors: GuestAddress,
    /// Where the available ring is.
    pub available: GuestAddress,
    /// Where the used ring is.
    pub used: GuestAddress,
    /// Written when there is something available.
    pub kick: &'a EventFd,
    /// Written by vhost when it has used something.
    pub call: &'a EventFd,
}

/// What takes packets from our rings and puts packets into them. A seam for tests.
pub trait Vhost: Send + Sync + 'static {
    /// Starts with empty rings, first that for packets to the guest, then that for packets of the guest.
    ///
    /// # Errors
    /// What the kernel says. It is not started then.
    fn start(&self, rings: [Ring<'_>; 2]) -> io::Result<()>;

    /// Stops. When this returns, neither rings nor guest memory are touched any more.
    fn stop(&self);
}

/// The parent's kernel.
#[derive(Debug)]
pub struct VhostVsock {
    device: File,
    /// What its memory table names, kept mapped.
    memory: Arc<GuestMemory>,
}

/// `VHOST_VIRTIO`.
const VHOST: u32 = 0xaf;

/// `struct vhost_vring_state`.
#[repr(C)]
struct RingState {
    index: u32,
    number: u32,
}

/// `struct vhost_vring_file`.
#[repr(C)]
struct RingFile {
    index: u32,
    descriptor: i32,
}

/// `struct vhost_vring_addr`.
#[repr(C)]
struct RingAddresses {
    index: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// The head of `struct vhost_memory`.
#[repr(C)]
struct MemoryTable {
    regions: u32,
    padding: u32,
}

/// `struct vhost_memory` is its head and this often four u64: guest address, size, our address, padding.
const WORDS_PER_REGION: usize = 4;

ioctl_ior_nr!(VHOST_GET_FEATURES, VHOST, 0x00, u64);
ioctl_iow_nr!(VHOST_SET_FEATURES, VHOST, 0x00, u64);
ioctl_io_nr!(VHOST_SET_OWNER, VHOST, 0x01);
ioctl_iow_nr!(VHOST_SET_MEM_TABLE, VHOST, 0x03, MemoryTable);
ioctl_iow_nr!(VHOST_SET_VRING_NUM, VHOST, 0x10, RingState);
ioctl_iow_nr!(VHOST_SET_VRING_ADDR, VHOST, 0x11, RingAddresses);
ioctl_iow_nr!(VHOST_SET_VRING_BASE, VHOST, 0x12, RingState);
ioctl_iow_nr!(VHOST_SET_VRING_KICK, VHOST, 0x20, RingFile);
ioctl_iow_nr!(VHOST_SET_VRING_CALL, VHOST, 0x21, RingFile);
ioctl_iow_nr!(VHOST_VSOCK_SET_GUEST_CID, VHOST, 0x60, u64);
ioctl_iow_nr!(VHOST_VSOCK_SET_RUNNING, VHOST, 0x61, i32);

impl VhostVsock {
    /// Makes this process the owner of `device`, which then reaches `memory` and nothing else of it, and takes the CID. The
    /// thread that calls this lends the kernel's worker its CPUs: it must not be one of a vCPU.
    ///
    /// # Errors
    /// `EADDRINUSE` if another guest has the CID; else what the kernel says.
    pub(super) fn new(device: File, guest_cid: u32, memory: Arc<GuestMemory>) -> io::Result<Self> {
        let vhost = Self { device, memory };
        // SAFETY: has no argument.
        checked(unsafe { ioctl(&vhost.device, VHOST_SET_OWNER()) })?;
        vhost.agree_on_features()?;
        vhost.set_memory()?;
        vhost.set(VHOST_VSOCK_SET_GUEST_CID(), &u64::from(guest_cid))?;
        Ok(vhost)
    }

    fn agree_on_features(&self) -> io::Result<()> {
        let wanted = 1_u64 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;
        let mut offered = 0_u64;
        // SAFETY: the kernel writes one u64.
        checked(unsafe { ioctl_with_mut_ref(&self.device, VHOST_GET_FEATURES(), &mut offered) })?;
        if offered & wanted != wanted {
            return Err(io::Error::other(format!("vhost-vsock offers only {offered:#x}")));
        }
        self.set(VHOST_SET_FEATURES(), &wanted)
    }

    fn set_memory(&self) -> io::Result<()> {
        let regions = u64::try_from(self.memory.num_regions()).map_err(io::Error::other)?;
        // The head, as the one word that it is on a little-endian machine.
        let mut table = vec![regions];
        for region in self.memory.iter() {
            let host = region.as_ptr() as u64;
            table.extend([region.start_addr().0, region.len(), host, 0]);
        }
        debug_assert_eq!(table.len(), 1 + WORDS_PER_REGION * self.memory.num_regions());
        // SAFETY: the kernel reads the head and as many regions as that says. What it may access is mapped for as long as
        // `self.memory` is there, which is as long as the device is open.
        checked(unsafe { ioctl_with_ptr(&self.device, VHOST_SET_MEM_TABLE(), table.as_ptr()) })
    }

    fn set_ring(&self, index: u32, ring: &Ring<'_>) -> io::Result<()> {
        let address = |of: GuestAddress| {
            let host = self.memory.get_host_address(of).map_err(io::Error::other)?;
            Ok::<u64, io::Error>(host as u64)
        };
        let addresses = RingAddresses {
            index,
            flags: 0,
            descriptors: address(ring.descriptors)?,
            used: address(ring.used)?,
            available: address(ring.available)?,
            log: 0,
        };
        let file = |event: &EventFd| RingFile {
            index,
            descriptor: event.as_raw_fd(),
        };
        let number = u32::from(ring.size);
        self.set(VHOST_SET_VRING_NUM(), &RingState { index, number })?;
        self.set(VHOST_SET_VRING_BASE(), &RingState { index, number: 0 })?;
        self.set(VHOST_SET_VRING_ADDR(), &addresses)?;
        self.set(VHOST_SET_VRING_KICK(), &file(ring.kick))?;
        self.set(VHOST_SET_VRING_CALL(), &file(ring.call))
    }

    fn set<T>(&self, request: c_ulong, value: &T) -> io::Result<()> {
        // SAFETY: each request above is given the type that its number is made of, which the kernel reads. Addresses in it are
        // of memory that stays mapped (see `set_memory`), descriptors are open.
        checked(unsafe { ioctl_with_ref(&self.device, request, value) })
    }
}

impl Vhost for VhostVsock {
    fn start(&self, rings: [Ring<'_>; 2]) -> io::Result<()> {
        for (index, ring) in (0..).zip(&rings) {
            self.set_ring(index, ring)?;
        }
        self.set(VHOST_VSOCK_SET_RUNNING(), &1_i32)
    }

    fn stop(&self) {
        // Fails only if the device has no owner.
        let _ = self.set(VHOST_VSOCK_SET_RUNNING(), &0_i32);
    }
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
