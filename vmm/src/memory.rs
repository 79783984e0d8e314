//! Guest memory: hugetlb memfds of the daemon, mapped shared, in guest-physical order around the gap for devices.
//!
//! The files are laid end to end; bytes below [`layout::LOW_RAM_END`] are low RAM, the rest continues at
//! [`layout::HIGH_RAM_START`]. The daemon has reserved the hugepages; should it not have, mapping does, so that a shortage
//! is found here and not in the guest. The kernel zeroes each page when it is first touched: by the guest, or, where the
//! pages are to come from a certain NUMA node, here.

use std::{fs::File, io, os::fd::OwnedFd, sync::Arc};

use api::vmm::MemoryFile;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion, mmap::MmapRegionError,
};

use crate::arch::layout;

/// Why guest memory could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The number of descriptors differs from the number of files in the launch specification.
    #[error("{files} memory files are specified but {descriptors} descriptors came")]
    Descriptors {
        /// Elements in the specification.
        files: usize,
        /// Descriptors received.
        descriptors: usize,
    },
    /// Zero, no multiple of its page size, or beyond the address space; or a page would straddle the device gap.
    #[error("memory file {index} of {size} bytes cannot be placed with pages of {page_size} bytes")]
    Unplaceable {
        /// Position in the specification.
        index: usize,
        /// Its size in bytes.
        size: u64,
        /// Its page size in bytes.
        page_size: u64,
    },
    /// `mmap` failed; `ENOMEM` means that the hugepages are taken.
    #[error("{size} bytes of hugepages cannot be mapped")]
    Map {
        /// Length of the mapping in bytes.
        size: u64,
        /// What `mmap` said.
        source: MmapRegionError,
    },
    /// The pages of the wanted NUMA node could not be taken; `ENOMEM` or `EFAULT` means that it has too few.
    #[error("{size} bytes of hugepages cannot be taken from NUMA node {node}")]
    Node {
        /// Length of the mapping in bytes.
        size: u64,
        /// The node.
        node: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The regions do not form an address space.
    #[error("guest memory regions are inconsistent")]
    Regions(#[source] vm_memory::GuestRegionCollectionError),
    /// `KVM_SET_USER_MEMORY_REGION` failed.
    #[error("KVM refused a memory region")]
    Register(#[source] kvm_ioctls::Error),
}

impl MemoryError {
    /// Whether the cause is that too few hugepages are free.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Map {
                source: MmapRegionError::Mmap(error),
                ..
            } => error.raw_os_error() == Some(libc::ENOMEM),
            Self::Node { source, .. } => {
                matches!(source.raw_os_error(), Some(libc::ENOMEM | libc::EFAULT))
            }
            _ => false,
        }
    }
}

/// A part of one file at one guest-physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placement {
    file: usize,
    file_offset: u64,
    guest_address: u64,
    size: u64,
}

/// Lays `files` out, splitting the one that crosses into the device gap.
fn place(files: &[MemoryFile]) -> Result<Vec<Placement>, MemoryError> {
    let mut placements = Vec::new();
    let mut position: u64 = 0;
    for (index, file) in files.iter().enumerate() {
        let MemoryFile { size, page_size, .. } = *file;
        let unplaceable = || MemoryError::Unplaceable {
            index,
            size,
            page_size,
        };
        if size == 0 || page_size == 0 || size % page_size != 0 {
            return Err(unplaceable());
        }
        let end = position
            .checked_add(size)
            .filter(|end| *end < 1 << 46)
            .ok_or_else(unplaceable)?;
        let low = end.min(layout::LOW_RAM_END).saturating_sub(position);
        if low % page_size != 0 {
            return Err(unplaceable());
        }
        if low > 0 {
            placements.push(Placement {
                file: index,
                file_offset: 0,
                guest_address: position,
                size: low,
            });
        }
        if low < size {
            let guest_address = layout::HIGH_RAM_START + (position + low - layout::LOW_RAM_END);
            placements.push(Placement {
                file: index,
                file_offset: low,
                guest_address,
                size: size - low,
            });
        }
        position = end;
    }
    Ok(placements)
}

/// Maps the files. Pages of a certain NUMA node are taken at once, because the kernel cannot reserve them; of others none is
/// touched.
///
/// # Errors
/// See [`MemoryError`]; [`MemoryError::is_shortage`] tells the one an operator meets.
pub fn map(files: &[MemoryFile], descriptors: Vec<OwnedFd>) -> Result<GuestMemoryMmap, MemoryError> {
    if files.len() != descriptors.len() {
        return Err(MemoryError::Descriptors {
            files: files.len(),
            descriptors: descriptors.len(),
        });
    }
    let placements = place(files)?;
    let descriptors: Vec<Arc<File>> = descriptors
        .into_iter()
        .map(|descriptor| Arc::new(descriptor.into()))
        .collect();
    let regions: Result<Vec<_>, _> = placements
        .iter()
        .map(|placement| {
            let region = map_region(placement, &descriptors)?;
            match files.get(placement.file).and_then(|file| file.node) {
                Some(node) => take_pages(&region, node).map(|()| region),
                None => Ok(region),
            }
        })
        .collect();
    GuestMemoryMmap::from_regions(regions?).map_err(MemoryError::Regions)
}

fn map_region(placement: &Placement, files: &[Arc<File>]) -> Result<GuestRegionMmap, MemoryError> {
    let Placement {
        file,
        file_offset,
        guest_address,
        size,
    } = *placement;
    let failed = |source| MemoryError::Map { size, source };
    let length = usize::try_from(size).map_err(|_| failed(MmapRegionError::InvalidPointer))?;
    let file = files
        .get(file)
        .ok_or_else(|| failed(MmapRegionError::InvalidPointer))?;
    // Without MAP_NORESERVE: the reservation is what makes a shortage an error here and not a SIGBUS in the guest.
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let mapping = MmapRegion::build(
        Some(FileOffset::from_arc(Arc::clone(file), file_offset)),
        length,
        protection,
        libc::MAP_SHARED,
    );
    GuestRegionMmap::new(mapping.map_err(failed)?, GuestAddress(guest_address))
        .ok_or_else(|| failed(MmapRegionError::InvalidPointer))
}

/// Takes all pages of a region that nobody has touched yet from `node`.
fn take_pages(region: &GuestRegionMmap, node: u32) -> Result<(), MemoryError> {
    let size = region.len();
    let failed = |source| MemoryError::Node { size, node, source };
    let length = usize::try_from(size).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
    let nodes = NodeMask::of(node).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    bind(region.as_ptr(), length, &nodes)
        .and_then(|()| populate(region.as_ptr(), length))
        .map_err(failed)
}

/// A set of NUMA nodes as system calls take it.
struct NodeMask([libc::c_ulong; Self::WORDS]);

impl NodeMask {
    /// As many as Linux can have on x86-64 (`MAX_NUMNODES`).
    const NODES: usize = 1024;
    const WORDS: usize = Self::NODES / libc::c_ulong::BITS as usize;

    fn of(node: u32) -> Option<Self> {
        let mut words = [0; Self::WORDS];
        let word = words.get_mut((node / libc::c_ulong::BITS) as usize)?;
        *word = 1 << (node % libc::c_ulong::BITS);
        Some(Self(words))
    }
}

/// Has the pages of a mapping come from `nodes` and no others (mbind(2)).
#[expect(unsafe_code, reason = "mbind(2) has no safe form")]
fn bind(address: *mut u8, length: usize, nodes: &NodeMask) -> io::Result<()> {
    // One more than the bits, as the kernel wants it.
    let bits = NodeMask::NODES + 1;
    // SAFETY: the address range is one whole mapping of ours, whose contents the call does not change; the mask has as many
    // bits as the call is told, and outlives it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            address,
            length,
            libc::MPOL_BIND,
            nodes.0.as_ptr(),
            bits,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Touches every page of a mapping, without a signal if there is none (madvise(2), Linux 5.14).
#[expect(unsafe_code, reason = "madvise(2) takes a raw address range")]
fn populate(address: *mut u8, length: usize) -> io::Result<()> {
    loop {
        // SAFETY: the address range is one whole mapping of ours; populating it changes no byte.
        let result = unsafe { libc::madvise(address.cast(), length, libc::MADV_POPULATE_WRITE) };
        let error = io::Error::last_os_error();
        match error.kind() {
            _ if result == 0 => return Ok(()),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

/// Bytes of RAM in all regions.
pub fn size(memory: &GuestMemoryMmap) -> u64 {
    memory.iter().map(GuestMemoryRegion::len).sum()
}

/// Gives every region to KVM, one slot each. `memory` must stay mapped for as long as a vCPU of `vm` runs.
pub(crate) fn register(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), MemoryError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        set_slot(vm, slot).map_err(MemoryError::Register)?;
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "KVM_SET_USER_MEMORY_REGION hands address ranges of this process to KVM"
)]
fn set_slot(vm: &VmFd, slot: kvm_userspace_memory_region) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the range is one whole mapping of guest memory, and guest memory stays mapped while a vCPU runs: vCPU
    // threads share it through the buses, and the probe runs its vCPU itself. The regions do not overlap, because
    // `from_regions` checks that.
    unsafe { vm.set_user_memory_region(slot) }
}

/// Lends the bytes from `address` on to `access` as a plain slice, for loading the image: reading a file straight into
/// guest memory and hashing what was read must not cost a copy. They are `limit` bytes, or fewer where a region ends.
///
/// Returns `None` if there is no memory at `address`.
#[expect(
    unsafe_code,
    reason = "guest memory is a plain byte slice only while nobody else can touch it"
)]
pub(crate) fn with_exclusive_bytes<T>(
    memory: &mut ExclusiveMemory<'_>,
    address: u64,
    limit: usize,
    access: impl FnOnce(&mut [u8]) -> T,
) -> Option<T> {
    let (region, start) = memory.0.to_region_addr(GuestAddress(address))?;
    let length = usize::try_from(region.len() - start.0).map_or(limit, |rest| rest.min(limit));
    let slice = region.get_slice(start, length).ok()?;
    let guard = slice.ptr_guard_mut();
    // SAFETY: the range is mapped and writable, and `ExclusiveMemory` promises that no vCPU, no device and no other
    // process touches guest memory while it exists; it is borrowed mutably, so there is one slice at a time.
    let bytes = unsafe { std::slice::from_raw_parts_mut(guard.as_ptr(), length) };
    Some(access(bytes))
}

/// The promise that nothing but the loader touches guest memory yet: no vCPU exists, no device is active, and the
/// daemon, which made the files, never maps them.
#[derive(Debug)]
pub struct ExclusiveMemory<'a>(&'a GuestMemoryMmap);

impl<'a> ExclusiveMemory<'a> {
    /// To be called once, before the first vCPU is created. Whoever calls it gives the promise.
    pub(crate) fn before_start(memory: &'a GuestMemoryMmap) -> Self {
        Self(memory)
    }

    /// Copies `bytes` to `address`. Returns `None` if they do not fit.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) -> Option<()> {
        self.0.write_slice(bytes, GuestAddress(address)).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn file(size: u64, page_size: u64) -> MemoryFile {
        MemoryFile {
            size,
            page_size,
            node: None,
        }
    }

    #[test]
    fn memory_below_the_gap_is_one_region() {
        let placements = place(&[file(512 * MIB, 2 * MIB)]).unwrap();

        assert_eq!(
            placements,
            [Placement {
                file: 0,
                file_offset: 0,
                guest_address: 0,
                size: 512 * MIB
            }]
        );
    }

    #[test]
    fn a_file_that_crosses_the_gap_is_split_at_a_page_boundary() {
        let placements = place(&[file(5 * GIB, GIB)]).unwrap();

        assert_eq!(
            placements[0],
            Placement {
                file: 0,
                file_offset: 0,
                guest_address: 0,
                size: 3 * GIB
            }
        );
        assert_eq!(
            placements[1],
            Placement {
                file: 0,
                file_offset: 3 * GIB,
                guest_address: 4 * GIB,
                size: 2 * GIB
            }
        );
    }

    #[test]
    fn a_page_that_would_straddle_the_gap_is_refused() {
        let error = place(&[file(2 * MIB, 2 * MIB), file(4 * GIB, GIB)]).unwrap_err();

        assert!(
            matches!(error, MemoryError::Unplaceable { index: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_size_that_is_no_multiple_of_the_page_is_refused() {
        assert!(place(&[file(3 * MIB, 2 * MIB)]).is_err());
        assert!(place(&[file(0, 2 * MIB)]).is_err());
        assert!(place(&[file(u64::MAX - 1, 1)]).is_err());
    }

    proptest! {
        #[test]
        fn every_byte_is_placed_once_and_none_in_the_gap(sizes in prop::collection::vec(1_u64..3000, 1..6)) {
            let files: Vec<_> = sizes.iter().map(|pages| file(pages * 2 * MIB, 2 * MIB)).collect();

            let placements = place(&files).unwrap();

            let total: u64 = placements.iter().map(|placement| placement.size).sum();
            prop_assert_eq!(total, files.iter().map(|file| file.size).sum::<u64>());
            let mut end = 0;
            for placement in placements {
                prop_assert!(placement.guest_address >= end);
                end = placement.guest_address + placement.size;
                prop_assert!(end <= layout::LOW_RAM_END || placement.guest_address >= layout::HIGH_RAM_START);
            }
        }
    }

    #[test]
    fn pages_of_this_machines_first_node_are_taken_at_once_and_those_of_none_are_not() {
        let memfd = || {
            let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            rustix::fs::ftruncate(&file, 4 << 20).unwrap();
            file
        };
        let layout = |node| MemoryFile {
            node: Some(node),
            ..file(4 << 20, 2 << 20)
        };

        let memory = map(&[layout(0)], vec![memfd()]).unwrap();

        assert_eq!(size(&memory), 4 << 20);
        for node in [1023, 1024, u32::MAX] {
            let error = map(&[layout(node)], vec![memfd()]).unwrap_err();
            assert!(
                matches!(error, MemoryError::Node { node: named, .. } if named == node),
                "{error}"
            );
        }
    }
}
