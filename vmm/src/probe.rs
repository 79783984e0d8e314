//! Does this KVM really run guests? Some clouds offer a `/dev/kvm` that emulates guest kernel code instruction by
//! instruction; it looks like KVM until the first SSE instruction ends in `KVM_EXIT_INTERNAL_ERROR`.
//!
//! The probe runs a few real-mode instructions, SSE among them, in one page of memory.

use std::os::fd::IntoRawFd;

use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{
    arch::{self, BootError},
    memory::{self, MemoryError},
};

/// Why this machine cannot run enclaves.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// `/dev/kvm` is missing or not permitted.
    #[error(
        "/dev/kvm cannot be opened; load kvm_amd or kvm_intel, turn virtualisation on in the firmware, or enable \
         nested virtualisation for this machine"
    )]
    Open(#[source] std::io::Error),
    /// The virtual machine could not be made.
    #[error("KVM cannot create a virtual machine")]
    Create(#[source] kvm_ioctls::Error),
    /// Memory of the test guest.
    #[error("the test guest has no memory")]
    Memory(#[from] MemoryError),
    /// Registers of the test guest.
    #[error("the test guest cannot be set up")]
    Setup(#[from] BootError),
    /// The test guest did not get to its end.
    #[error("/dev/kvm exists but cannot run guests: {0}. It may emulate them instead of using the processor")]
    Unusable(String),
}

const CODE: u16 = 0x1000;
const MEMORY: usize = 2 << 20;

/// Runs the test guest to its end.
///
/// # Errors
/// See [`ProbeError`]; each names the remedy.
pub fn probe() -> Result<(), ProbeError> {
    let kvm = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(ProbeError::Open)?;
    let kvm = kvm_from(kvm);
    let vm = kvm.create_vm().map_err(ProbeError::Create)?;
    let guest = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]);
    let guest = guest.map_err(|error| ProbeError::Unusable(error.to_string()))?;
    memory::register(&vm, &guest)?;
    guest
        .write_slice(&arch::PROBE_CODE, GuestAddress(CODE.into()))
        .map_err(BootError::from)?;
    let mut vcpu = vm.create_vcpu(0).map_err(ProbeError::Create)?;
    arch::enter_real_mode(&vcpu, CODE)?;
    match vcpu.run() {
        Ok(VcpuExit::IoOut(port, data))
            if port == u16::from(arch::PROBE_PORT) && data == [arch::PROBE_ANSWER] =>
        {
            Ok(())
        }
        Ok(other) => Err(ProbeError::Unusable(format!(
            "the test guest ended with {other:?}"
        ))),
        Err(error) => Err(ProbeError::Unusable(format!("KVM_RUN failed: {error}"))),
    }
}

/// KVM through a descriptor that somebody opened.
#[expect(unsafe_code, reason = "kvm-ioctls takes over a raw descriptor")]
pub fn kvm_from(descriptor: impl IntoRawFd) -> Kvm {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor is owned and given up here. If it is not /dev/kvm, its ioctls fail with ENOTTY.
    unsafe { Kvm::from_raw_fd(descriptor.into_raw_fd()) }
}
