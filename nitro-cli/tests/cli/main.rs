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
mod conformance;
mod console;
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
mod run_configuration;
mod signing;
mod usage;
