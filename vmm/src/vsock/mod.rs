//! virtio-vsock: the one way in and out of an enclave.
//!
//! The guest's driver puts packets into virtqueues; a *backend* carries their bytes to somebody on the parent. There are two:
//! [`unix`], which needs nothing of the parent's kernel but Unix sockets, and [`kernel`], with which the parent's programs use
//! `AF_VSOCK`. What they have in common is in [`halves`].
//!
//! # Wiring
//!
//! ```text
//!   let (device, worker) = unix::open(config)?;
//!   let transport = MmioTransport::new(device, memory, line)?;   // on the MMIO bus; doorbells() become ioeventfds
//!   thread::spawn(move || worker.serve());                        // on a thread of its own
//! ```
//!
//! The device half answers register accesses on vCPU threads; the worker half moves bytes on its thread. They share
//! the active device behind a mutex that is held for bounded work only and never while waiting.

#[cfg(test)]
mod driver;
pub mod halves;
pub mod kernel;
mod put_off;
pub mod unix;

/// Sizes of the receive, transmit and event queue, in this order.
const QUEUE_SIZES: [u16; 3] = [256, 256, 256];

/// The configuration space: the guest's CID as a little-endian u64 (virtio 1.2, 5.10.4).
#[derive(Clone, Copy, Debug)]
struct ConfigSpace([u8; 8]);

impl ConfigSpace {
    fn new(guest_cid: u32) -> Self {
        Self(u64::from(guest_cid).to_le_bytes())
    }

    /// Fills `data` from `offset` as far as the space goes.
    fn read(self, offset: u64, data: &mut [u8]) {
        let Some(rest) = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.0.get(offset..))
        else {
            return;
        };
        for (to, from) in data.iter_mut().zip(rest) {
            *to = *from;
        }
    }
}
