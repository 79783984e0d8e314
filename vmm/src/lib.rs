//! The virtual machine monitor of one enclave: a process that is given descriptors, measures and boots an EIF, and ends
//! with its guest.
//!
//! # How an enclave starts
//!
//! ```text
//! control   LaunchSpec and descriptors from the daemon, over standard input
//! memory    hugetlb memfds, mapped; pages are reserved now and touched later
//! machine   VM, interrupt controllers, devices on two buses
//! load      one pass over the EIF: every byte to guest memory, into the PCR hashes and the CRC
//!           ─► Measured
//! arch      zero page, MP table, page tables; CPUID and registers
//!           ─► Started
//! vcpu      one pinned thread per vCPU: run, serve the exit, repeat
//! ```
//!
//! The vsock device then has a thread of its own, the main thread serves the other devices with one event loop (`machine`), and each
//! thread makes the system calls of its work alone (`sandbox`). The process ends when the guest does, when
//! the daemon goes away, or when it is killed; nothing outlives it, because it owns nothing but descriptors.
//!
//! # What is trusted
//!
//! The daemon, until the guest runs. Nothing that a guest does: a port or address that no device claims reads as ones,
//! virtqueues are checked by the `virtio` crate, packets by `vsock-device`.

pub mod arch;
pub mod bus;
pub mod control;
pub mod devices;
pub mod failure;
#[doc(hidden)]
pub mod fuzzing;
pub mod load;
pub mod log;
pub mod machine;
pub mod memory;
pub mod nsm;
pub mod privileges;
pub mod probe;
pub mod sandbox;
pub mod signals;
pub mod stall;
pub mod vcpu;
pub mod vsock;
