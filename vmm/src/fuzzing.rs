//! What `crates/fuzz-targets` needs of this crate beside what the program uses: the vsock device over another vhost than the
//! kernel's, and the loader with an image that is in no file.
//!
//! It is a hidden module and no cargo feature: features add up in a workspace, so a feature of the targets' would be on in whatever is
//! built together with them, and off only where nobody looks. What is fuzzed is built from the same source as what is shipped.

use std::io;
use std::sync::Arc;

use virtio::GuestMemory;
use vm_memory::GuestAddress;

pub use crate::vsock::kernel::{Endpoints, Halves, Ring, SHADOW, Vhost};

use crate::load::{LoadError, Loaded, load_from};
use crate::memory::{self, ExclusiveMemory};
use crate::vsock::kernel::open_with;

/// Opens the vsock device over a vhost that is made of the memory that it may reach: guest memory and, from [`SHADOW`] on, shadow
/// memory.
///
/// # Errors
/// If there is no memory or no descriptor to be had.
pub fn open_vsock<V: Vhost>(
    guest_cid: u32,
    guest_memory: &GuestMemory,
    vhost: impl FnOnce(Arc<GuestMemory>) -> V,
) -> io::Result<Halves<V>> {
    open_with(guest_cid, guest_memory, |memory| Ok(vhost(memory)))
}

/// Loads an image into guest memory of these regions, which is made here: nobody else may have it while an image is loaded. `None` if
/// there is no such memory.
pub fn load_image(
    image: &[u8],
    regions: &[(GuestAddress, usize)],
) -> Option<(GuestMemory, Result<Loaded, LoadError>)> {
    let memory = GuestMemory::from_ranges(regions).ok()?;
    let exclusive = ExclusiveMemory::before_start(&memory);
    let loaded = load_from(image, image.len() as u64, exclusive, memory::size(&memory));
    Some((memory, loaded))
}
