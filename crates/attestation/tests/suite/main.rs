//! The crate as its users see it.

mod assembled;
mod authority;
mod crafted;
mod genuine;
mod issued;
mod operator;
mod refused;
mod robust;
mod speed;
mod vectors;
mod written;
