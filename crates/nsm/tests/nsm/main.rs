//! The module as its guest and its daemon meet it.
//!
//! `golden` has the bytes of every request and response, `requests` what a client may vary, `rules` what is answered when,
//! `registers` the PCRs against a model, `snapshots` what survives, `oracle` AWS's own types (also for what `unusual` makes up), `hostile` everything else that
//! a guest may send.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something unexpected happens"
)]

mod client;
mod corpus;
mod golden;
mod hostile;
mod machine;
mod oracle;
mod registers;
mod requests;
mod rules;
mod snapshots;
mod unusual;
