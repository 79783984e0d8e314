//! The format as a user of the crate meets it: good files, bad files, built files, and any bytes at all.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something unexpected happens"
)]

mod build;
mod by_hand;
mod malformed;
mod properties;
mod read;
mod sign;
