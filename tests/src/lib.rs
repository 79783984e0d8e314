//! What the end-to-end suites stand on: running the built programs as a user would, and seeing what they leave behind.
//!
//! # Where the suites run
//!
//! Each file in `tests/` is a suite. `cargo xtask test` builds it as a static program, starts the parent instance that the
//! line `// parent: …` at its head describes (the options are those of `cargo xtask parent`), and runs it there as root.
//! The parent has the programs in `/usr/bin`, the daemon up, and the files of [`parent`]. Outside a parent a suite fails
//! at once: it reserves memory, kills processes and replaces `/dev/kvm`.
//!
//! # How a test is made
//!
//! ```no_run
//! use end_to_end_tests::{Host, Launch, World, parent};
//!
//! let _world = World::enter();                       // checks at its end that nothing stayed behind
//! let host = Host::of_the_parent();                  // the daemon, seen as its clients see it
//! let enclave = Launch::of(parent::hello_eif()).in_debug_mode().run(&host);
//! enclave.console().wait_for("Hello from the enclave side!");
//! enclave.terminate();
//! ```
//!
//! Tests of a suite run one after the other, because they count the machine's hugepages and processes. Nothing is
//! measured in time: [`poll`] waits for what is to happen, with limits that only a hang can reach.
//!
//! # What runs inside the enclaves
//!
//! The programs in `src/bin`, whose heads say what they do. [`ContainerImage`] packs one into an image, from which
//! `nitro-cli build-enclave` makes the EIF; [`eifs`] makes those that no builder would make.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a suite that cannot prepare its world must fail on the spot and say why"
)]

mod command;
mod container_image;
mod daemon;
pub mod descriptors;
pub mod eifs;
mod enclave;
pub mod guest;
pub mod hex;
pub mod hostile_vmm;
pub mod injection;
pub mod kernel_log;
mod lines;
pub mod parent;
pub mod poll;
mod process;
pub mod stream;
pub mod vsock_socket;
mod world;

pub use command::{Finished, Running, processes_named, run, send_signal};
pub use container_image::{ContainerImage, build_enclave};
pub use daemon::{OwnDaemon, new_run_directory};
pub use enclave::{Enclave, Host, Launch};
pub use lines::rest_of_line;
pub use process::Holdings;
pub use world::{Checkpoint, World};
