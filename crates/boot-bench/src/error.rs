//! Why a figure could not be measured.

use std::time::Duration;

/// A failed measurement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The EIF could not be written.
    #[error("cannot build the enclave's image")]
    Build(#[from] eif::WriteError),
    /// The initramfs could not be written.
    #[error("cannot build the enclave's initramfs")]
    Initramfs(#[from] image::cpio::Error),
    /// The EIF could not be read.
    #[error("cannot read the enclave's image")]
    Eif(#[from] eif::EifError),
    /// The operating system refused something, or the VMM does not run.
    #[error(transparent)]
    Common(#[from] bench::Error),
    /// The VMM did something that it should not.
    #[error("the VMM could not start the enclave: {0}")]
    Vmm(String),
    /// The guest did not come as far as it should.
    #[error("{what} was not seen within {limit:?} of virtual time")]
    NotSeen {
        /// The event.
        what: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// A median of nothing was asked for.
    #[error("the number of runs is zero")]
    NoRuns,
    /// The program that hashes did not print a number.
    #[error("`boot-bench hash` failed: {0}")]
    Hash(String),
}
