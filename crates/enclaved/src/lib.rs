//! The host daemon: gives parts of this machine to enclaves and takes them back.
//!
//! # How a request flows
//!
//! ```text
//! client ── Unix socket ──► daemon: accepts          one task per connection, bounded in number, size and time
//!                             │
//!                           connection: one request  (wire: frames and descriptors)
//!                             │ run-enclave
//!                           admission: may it run?   CPUs, memory, CID, name; AWS's checks in AWS's order
//!                             │ Grant
//!                           registry: one record     holds what the enclave holds; the lease gives it back
//!                             │ Lease
//!                           preparation              directory, sockets, console pipe
//!                             │ Prepared
//!                           supervisor               one task per enclave, from launch to the end
//!                             │ Launch
//!                           launcher (vmm_process)   one enclave-vmm process, descriptors only
//! ```
//!
//! Replies flow back through a channel from supervisor to connection; nothing else does. The registry is the only
//! shared state, and the only account of who holds what: free is what no record holds.
//!
//! [`allocator`] is the library of another program, `nitro-enclaves-allocator`, which runs before: it sets CPUs and memory
//! apart and writes down what it has set apart as an [`allocator::pool::Pool`].
//!
//! # Rules
//!
//! - An enclave that has booted outlives the daemon; what the next one must know is in the enclave's directory (`note`).
//! - An enclave ends in one place (`supervisor`) and gives back what it held in one way: the process is reaped, then
//!   the lease is dropped. Clients hear of an end only after that.
//! - No guest runs from a signed image whose signature does not hold (`image_signature`).
//! - Failures get their AWS number ([`api::ErrorCode`]) where they are detected.
//! - Nothing a client, a VMM or a guest sends is trusted to be short, complete, timely or text. What a client passes is not
//!   even trusted to close in time (`foreign`).

#![forbid(unsafe_code)]

mod acl;
pub mod admission;
pub mod allocator;
mod application_end;
mod audit;
pub mod authority;
pub mod background;
pub mod config;
mod connection;
pub mod console;
pub mod cpu_partition;
pub mod daemon;
mod end;
pub mod ended;
pub mod error_chain;
pub mod events;
pub mod foreign;
mod guest_memory;
pub mod heartbeat;
pub mod ids;
mod image_signature;
pub mod inheritance;
mod interrupts;
pub mod launcher;
mod leftovers;
pub mod note;
mod own_port;
mod pace;
mod parent_vsock;
pub mod peer;
pub mod places;
mod port_listeners;
mod preparation;
mod printable;
pub mod process_identity;
pub mod registry;
pub mod run_directory;
pub mod security_module;
pub mod service_manager;
mod supervisor;
mod vmm_log;
pub mod vmm_process;
pub mod vmm_user;
mod vsock_carrier;
mod wire;

pub use config::Config;
pub use daemon::Daemon;
