//! The crate as its users see it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something unexpected happens"
)]

mod assembled;
mod authority;
mod crafted;
mod genuine;
mod independent;
mod issued;
mod operator;
mod refused;
mod robust;
mod speed;
mod vectors;
mod written;
