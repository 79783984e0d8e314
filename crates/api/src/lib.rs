//! What the daemon, the VMM and the command line say to each other. Types only: nothing here does I/O.
//!
//! # Three conversations
//!
//! **Client and daemon** (`/run/enclaved/enclaved.sock`, a stream socket). The client sends one [`Request`] and reads
//! [`Reply`] messages until the daemon closes the connection. Each message is a [`frame`]: a four-byte big-endian
//! length, then that many bytes of JSON. A [`Request::RunEnclave`] carries exactly one descriptor, the EIF that the
//! client opened as itself, as `SCM_RIGHTS` with the frame's first bytes. After [`Reply::ConsoleAttached`] the
//! connection carries raw console bytes to the client until either side closes it. [`Request::Events`] is answered with
//! replies without end.
//!
//! **Daemon and VMM** (a `SOCK_SEQPACKET` pair; one packet is one JSON message, so there is no frame). The VMM finds
//! its end as standard input. The daemon sends one [`vmm::LaunchSpec`] with all the descriptors the enclave will
//! ever hold; the VMM answers with [`vmm::Event`]s. Once it has booted the daemon sends one [`vmm::Instruction`].
//!
//! **VMM and daemon, about the Nitro Security Module**: see [`nsm`].
//!
//! Every failure a user sees has an [`ErrorCode`], the `[ ENN ]` numbers of AWS's nitro-cli, assigned where the
//! failure is detected and printed by the command line.

#![forbid(unsafe_code)]

mod enclave;
mod error;
pub mod frame;
pub mod nsm;
mod request;
pub mod sandbox;
pub mod vmm;

pub use enclave::{
    ApplicationEnd, EnclaveDescription, EnclaveEvent, EnclaveFlags, EnclaveRunInfo, EnclaveState,
    EnclaveTermination, EndedEnclave, EventKind, Measurements, PoolCore, PoolHugepages, Pools, RunningImage,
};
pub use error::{ErrorCode, Failure};
pub use request::{CpuSelection, Logs, MAX_IMAGE_METADATA, Reply, Request, RunEnclave, Selector};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/enclaved/enclaved.sock";

/// The CID by which an enclave addresses its parent instance, as on AWS. `2`, Linux's own host CID, means the same.
pub const PARENT_CID: u32 = 3;

/// The vsock port on the parent to which an enclave's init connects once it runs (sdk-bootstrap `init.c`).
pub const HEARTBEAT_PORT: u32 = 9000;

/// The byte that init sends on [`HEARTBEAT_PORT`] and expects back.
pub const HEARTBEAT_BYTE: u8 = 0xb7;

/// The vsock port on the parent on which an enclave's init says how the application ended, before it reboots. AWS's init
/// says nothing, and a parent that does not listen refuses the connection, which init does not mind.
pub const APPLICATION_END_PORT: u32 = 9001;

/// The first CID given to an enclave that asks for none, as on AWS.
pub const FIRST_ENCLAVE_CID: u32 = 16;
