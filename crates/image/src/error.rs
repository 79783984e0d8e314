//! What can go wrong between an image and an EIF.

use std::io;
use std::path::PathBuf;

use crate::cpio;
use crate::layer::LayerError;
use crate::tar::TarError;
use crate::tree::TreeError;

/// Why an image could not be read or an EIF not be written. Each variant names the file or image at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is no such file or directory, with or without a part after a colon taken as a reference.
    #[error("`{}` does not exist", .0.display())]
    NotFound(PathBuf),
    /// A file could not be opened, read, or listed.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// A file that is neither of the archives that are understood.
    #[error(
        "`{}` is not an image: expected an OCI image layout, an archive made by `docker save`, or a directory",
        .0.display()
    )]
    NotAnImage(PathBuf),
    /// A tar archive that should hold an image is damaged.
    #[error("cannot read the archive `{}`", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        source: TarError,
    },
    /// Unpacking a compressed archive failed.
    #[error("cannot unpack `{}`", path.display())]
    Unpack {
        /// The archive.
        path: PathBuf,
        /// What failed.
        source: LayerError,
    },
    /// An image names a file or blob that it does not contain.
    #[error("the image lacks `{0}`")]
    Missing(String),
    /// One of the image's JSON files is larger than 4 MiB.
    #[error("`{0}` in the image is larger than 4 MiB")]
    DocumentTooLarge(String),
    /// One of the image's JSON files is not what it must be.
    #[error("`{name}` in the image is not valid")]
    Json {
        /// The file within the image.
        name: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A digest of an unknown form or algorithm.
    #[error("`{0}` is not a digest by SHA-256 or SHA-512")]
    UnknownDigest(String),
    /// A blob has not the digest it must have.
    #[error("`{name}` in the image is damaged: its digest is {actual}")]
    Digest {
        /// The blob.
        name: String,
        /// The digest that it has.
        actual: String,
    },
    /// A blob has not the size it must have.
    #[error("`{name}` in the image is damaged: it has {actual} bytes, not {expected}")]
    Size {
        /// The blob.
        name: String,
        /// The size that the image announces.
        expected: u64,
        /// The size that it has.
        actual: u64,
    },
    /// Something that is no Linux container image, or not in a form that is supported.
    #[error("media type `{0}` is not supported: this is not an ordinary container image")]
    MediaType(String),
    /// No image of the given name.
    #[error("`{}` holds no image `{reference}`; it has: {available}", path.display())]
    NoSuchReference {
        /// The layout or archive.
        path: PathBuf,
        /// The name asked for.
        reference: String,
        /// The names there are.
        available: String,
    },
    /// Several images, none of them chosen.
    #[error("`{}` holds several images: append a colon and one of: {available}", path.display())]
    Ambiguous {
        /// The layout or archive.
        path: PathBuf,
        /// The names there are.
        available: String,
    },
    /// The image is for other machines.
    #[error("the image is for {0}; enclaves run linux/amd64 images")]
    Platform(String),
    /// The configuration lists another number of layers than the manifest.
    #[error("the image has {layers} layers, but its configuration lists {diff_ids}")]
    LayerCount {
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
    /// A layer cannot be used.
    #[error("layer {number} of {count} is not usable")]
    Layer {
        /// Counted from 1, the lowest.
        number: usize,
        /// How many there are.
        count: usize,
        /// What is wrong with it.
        source: LayerError,
    },
    /// A file of a root file system directory cannot be taken over.
    #[error("cannot put `{}` into the image", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TreeError,
    },
    /// Neither the image nor the caller says what to run.
    #[error("nothing says what to run in the enclave: {0}")]
    NoCommand(&'static str),
    /// A value that does not fit into a file of lines.
    #[error("{what} contains {character}, which an enclave's start files cannot carry: `{value}`")]
    NotOneLine {
        /// Which value.
        what: &'static str,
        /// "a newline" or "a NUL".
        character: &'static str,
        /// The value, escaped.
        value: String,
    },
    /// A file that the kernel cannot unpack from a ramdisk.
    #[error("the image cannot be made into a ramdisk")]
    Ramdisk(#[source] cpio::Error),
    /// The list of extended attributes would be larger than the limit.
    #[error("the list of the image's extended attributes takes more than {limit} bytes")]
    TooManyAttributes {
        /// The limit.
        limit: u64,
    },
    /// The ramdisks would be larger than the limit.
    #[error("the ramdisks take {size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Their size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// The contents of a file could not be read when their turn came.
    #[error("cannot read the contents of `{name}`")]
    Content {
        /// The file within the image, escaped.
        name: String,
        /// What failed.
        source: io::Error,
    },
    /// A file of the blobs directory is missing.
    #[error("`{}` is missing: {purpose}", path.display())]
    MissingBlob {
        /// The file.
        path: PathBuf,
        /// What it is for.
        purpose: &'static str,
    },
    /// The kernel's configuration does not begin as those of Linux do.
    #[error("line 3 of `{}` does not name the kernel's version, as in `# Linux/x86_64 6.12.0 Kernel Configuration`", .0.display())]
    KernelConfig(PathBuf),
    /// The output exists and is not a regular file.
    #[error("the output `{}` exists and is not a regular file", .0.display())]
    Output(PathBuf),
    /// A registry does not give the image.
    #[error(transparent)]
    Fetch(#[from] image_fetch::FetchError),
    /// The output cannot be created, written or put in place.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The EIF cannot be assembled.
    #[error("cannot assemble the enclave image")]
    Eif(#[source] eif::WriteError),
    /// It cannot be signed.
    #[error("cannot sign the enclave image")]
    Sign(#[source] eif_signature::SignerError),
}

impl From<atomic_file::Error> for ImageError {
    fn from(error: atomic_file::Error) -> Self {
        match error {
            atomic_file::Error::NotAFile(path) => Self::Output(path),
            atomic_file::Error::Write { path, source } => Self::Write { path, source },
            // There are no others today.
            other => Self::Write {
                path: PathBuf::new(),
                source: io::Error::other(other),
            },
        }
    }
}

impl ImageError {
    /// The error for a blob or document whose digest is wrong.
    pub(crate) fn digest(name: &str, mismatch: &image_fetch::DigestMismatch) -> Self {
        Self::Digest {
            name: name.to_owned(),
            actual: mismatch.actual.to_string(),
        }
    }
}
