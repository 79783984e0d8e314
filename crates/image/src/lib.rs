//! From a container image, or a root file system, to an Enclave Image File (EIF): reproducibly and without a container
//! engine.
//!
//! # The path of an image
//!
//! ```text
//! Source ── recognised by its path: OCI layout, `docker save` archive, root file system; or given: a registry, an open archive
//!   │ load            JSON documents, digests checked
//!   ▼
//! layers ── each blob is read once: hashed, unpacked, its tar entries listed
//!   │ apply           whiteouts, then additions
//!   ▼
//! Tree ──── the file system in memory: names, attributes, and where contents are; nothing is unpacked to disk as files
//!   │ write           in sorted order, contents copied from where they are
//!   ▼
//! ramdisks (cpio) ── measured and written in the same pass ──► EIF, renamed into place
//! ```
//!
//! # Same input, same bytes
//!
//! No clock is read and no order depends on the file system or the hash of a name: the same image, blobs and options give
//! the same EIF on any machine and day. `SOURCE_DATE_EPOCH` is honoured through [`BuildOptions::source_date_epoch`].
//!
//! # Hostile input
//!
//! Images come from strangers. Archives, documents and names are bounded in memory and time by [`Limits`], nothing is
//! ever written outside the output, and whatever cannot be carried over is an [`ImageError`] or a [`Warning`].
//!
//! # Compared with AWS's tools
//!
//! The layout of the ramdisks is the same ([`cpio`] describes the format). What differs: the command is ENTRYPOINT
//! followed by CMD and not one of them; WORKDIR, USER and extended attributes are passed on; an argument with a newline
//! is refused and not split.

#![forbid(unsafe_code)]

mod build;
mod config;
mod content;
pub mod cpio;
mod error;
mod kernel;
mod layer;
mod ramdisk;
mod range;
mod sign;
mod source;
mod tar;
#[cfg(test)]
#[path = "../tests/build/tar_writer.rs"]
mod tar_writer;
mod time;
mod tree;
mod xattrs;

pub use build::{BuildOptions, BuildReport, Limits, Progress, Warning, build, measure};
pub use config::Execution;
pub use error::ImageError;
pub use kernel::{BlobChoice, Blobs};
pub use layer::LayerError;
pub use sign::{sign, sign_with};
pub use source::Source;
pub use tar::TarError;
pub use time::rfc3339;
pub use tree::TreeError;
