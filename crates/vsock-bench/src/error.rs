//! Why nothing could be measured. A guest that does not answer is no such reason but a result.

/// A failed benchmark.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The EIF could not be written.
    #[error("cannot build the enclave's image")]
    Build(#[from] eif::WriteError),
    /// The initramfs could not be written.
    #[error("cannot build the guest's initramfs")]
    Initramfs(#[from] image::cpio::Error),
    /// The operating system refused something, or the VMM does not run.
    #[error(transparent)]
    Common(#[from] bench::Error),
}
