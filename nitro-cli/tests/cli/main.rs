//! The built `nitro-cli` as its users meet it: arguments in; exit code, standard output and standard error out.
//!
//! No enclave is needed. Where a command asks the daemon, [`fake_daemon`] speaks the daemon's side of the protocol.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, an assumption that does not hold is a failed test"
)]

mod attestation;
mod attested;
mod build_enclave;
mod build_from_elsewhere;
mod conformance;
mod console;
#[path = "../../../crates/image/tests/build/images.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod container_images;
mod daemon_failures;
mod describe_eif;
mod doctor;
mod enclaves;
mod events;
mod examples;
mod explain;
mod fake_daemon;
mod foreground;
mod generated;
mod images;
mod logs;
mod parser;
mod program;
mod registry;
mod run_configuration;
mod signing;
#[path = "../../../crates/image/tests/build/tar_writer.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod tar_writer;
#[path = "../../../crates/image-fetch/src/test_server.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod test_server;
mod usage;
