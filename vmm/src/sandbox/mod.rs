//! What is left to this process if a guest should take it over.
//!
//! Two layers, each of which holds without the other. The first is where the process is and who it is ([`jail`]): a directory, a user
//! without rights, the descriptors that the daemon has given. The second is which system calls each of its threads may make. A call
//! that is not in the list of a thread's class ends the process, and with it the enclave; the parent's kernel logs which call it was.
//!
//! ```text
//!   class      threads                                   from when on
//!   Boot       the only thread                           before anything of the daemon or of the image is read
//!   Vcpu       one for each vCPU                         before the guest's first instruction
//!   Vsock      the one of the vsock device               before the guest's first instruction
//!   Devices    the one that served the boot              before the guest's first instruction
//! ```
//!
//! Filters add up: the list of Boot has what the others have, and that of each other class is a part of it. What a class may do is
//! in [`calls`], how that becomes a filter of the kernel's in [`filter`].
//!
//! The C library makes calls of its own. Those of the dynamic linker and of locales are none of a static program's; those of its
//! allocator, which opens files when it has more than one arena, are spared by [`allocator::keep_to_one_arena`].

pub mod allocator;
pub mod calls;
pub mod filter;
mod ioctls;
pub mod jail;

/// A class of threads, by what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Parses the image, creates the virtual machine, starts the threads of vCPUs.
    Boot,
    /// Runs a vCPU, and activates and resets devices for it.
    Vcpu,
    /// Serves the vsock device.
    Vsock {
        /// Whether the guest's connections become connections to Unix sockets.
        unix_sockets: bool,
    },
    /// Serves the other devices, and interrupts vCPUs.
    Devices,
}
