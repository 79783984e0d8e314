//! What `boot-bench` and `vsock-bench` share: [`Vmm`], an enclave without a daemon, and [`Samples`] of a figure.

#![forbid(unsafe_code)]

mod error;
mod samples;
mod vmm;

pub use error::Error;
pub use samples::Samples;
pub use vmm::{Launch, Vmm};
