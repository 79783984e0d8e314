//! Connections between enclaves, which have only a vsock, and TCP.
//!
//! ```text
//! outbound  enclave ──vsock: parent, local port──►  vsock-proxy  ──TCP──►  remote address and port, if the allowlist has it
//! inbound   client  ──TCP──►  vsock-proxy  ──vsock: the enclave's CID and port──►  enclave
//! ```
//!
//! Each is a *target*: somewhere to listen, and somewhere else to connect to for each connection that comes
//! (`target`). The command line names one outbound target, as AWS's `vsock-proxy` does (`arguments`); a file names
//! any number of both kinds (`configuration`). The enclaves' side is `AF_VSOCK`, or the Unix sockets that the daemon has
//! for enclaves without the kernel's vsock (`enclave_side`).
//!
//! Bytes are passed on as they come, and so is the end of either direction (`relay`). A connection that cannot be made
//! closes the one that asked for it, and nothing else: the process ends only when it cannot start.

#![forbid(unsafe_code)]

mod arguments;
mod configuration;
mod counters;
mod enclave_side;
mod error;
mod log_limit;
mod relay;
mod remote;
mod resolve;
mod start;
mod target;

pub use arguments::Arguments;
pub use configuration::{Allowlist, ConfigurationError, Service, TargetConfiguration, Targets, TcpSide};
pub use enclave_side::{EnclaveAddress, ListenAddress};
pub use start::run;
