//! Layers: archives of changes to a file system, applied one on top of the other.
//!
//! # What a layer says (OCI image specification, `layer.md`)
//!
//! * An entry adds a file or replaces what had its name. A directory over a directory only changes attributes.
//! * An entry `a/.wh.b` (a whiteout) removes `a/b`, and `a/.wh..wh..opq` (an opaque whiteout) everything in `a`, as far as
//!   it comes from *lower* layers.
//!
//! Since whiteouts concern lower layers only, their place among the entries must not matter. So a layer is first read to
//! its end as a list of changes ([`read`]), and then applied: whiteouts first, then additions in the order of the archive
//! ([`Changes::apply`]).

mod stream;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_fetch::{Digest, DigestMismatch, HashingReader};

use crate::content::Content;
use crate::range::FileRange;
use crate::tar::{self, Entry, Kind, TarError};
use crate::tree::{Children, Inode, Node, Tree, TreeError, TreePath};
pub(crate) use stream::{Compression, Decoder, Failure, Tee, temporary_file};

/// Prefix of whiteouts.
const WHITEOUT: &[u8] = b".wh.";
/// Name of an opaque whiteout.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of AUFS's own files (`.wh..wh.plnk`, `.wh..wh.aufs`), which say nothing about the image.
const AUFS: &[u8] = b".wh..wh.";
/// Bytes charged for an entry besides its strings, while its layer is read.
const CHANGE_COST: u64 = 256;

/// Why a layer cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The blob could not be read.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The archive in it is damaged.
    #[error("the layer's tar archive is not usable")]
    Tar(#[source] TarError),
    /// One of its entries cannot be applied.
    #[error("cannot apply the entry `{name}`")]
    Entry {
        /// The name as it stands in the archive, escaped.
        name: String,
        /// What is wrong with it.
        source: TreeError,
    },
    /// The blob has another digest than the image says.
    #[error("the layer is damaged: its digest is {actual}, not {expected}")]
    Digest {
        /// What the image says.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// Compressed in a way that OCI does not have.
    #[error("layers compressed with {0} are not supported; gzip, zstd and uncompressed ones are")]
    Compression(&'static str),
    /// More bytes than the limit.
    #[error("the layers of the image unpack to more than the limit of {0} bytes")]
    TooLarge(u64),
    /// More names and attributes than the limit.
    #[error("the names and attributes in the layer take more than the limit of {0} bytes")]
    TooMuchMetadata(u64),
    /// No room for the unpacked layer.
    #[error("cannot unpack the layer into a temporary file in `{directory}`")]
    TemporaryFile {
        /// Where the file was to be.
        directory: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// A layer as an image names it.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) blob: FileRange,
    /// What identifies its bytes.
    pub(crate) check: Check,
}

/// Which bytes of a layer a digest is of.
#[derive(Clone, Debug)]
pub(crate) enum Check {
    /// The blob as it is stored.
    Blob(Digest),
    /// The archive in it (a `diff_id` of the image's configuration).
    Archive(Digest),
}

/// What reading the layers of one image may use.
#[derive(Debug)]
pub(crate) struct Workspace<'a> {
    /// Where compressed layers are unpacked, into files without a name.
    pub(crate) directory: &'a Path,
    /// Bytes that the layers may unpack to.
    pub(crate) limit: u64,
    /// What is left of `limit`.
    pub(crate) left: u64,
    /// Bytes of names and attributes that one layer may have.
    pub(crate) metadata_limit: u64,
}

impl Workspace<'_> {
    /// The error for what stopped a [`Tee`].
    pub(crate) fn failed(&self, failure: Failure) -> LayerError {
        match failure {
            Failure::Limit => LayerError::TooLarge(self.limit),
            Failure::Copy(source) => LayerError::TemporaryFile {
                directory: self.directory.to_owned(),
                source,
            },
        }
    }
}

/// What a layer changes.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    removed: Vec<TreePath>,
    emptied: Vec<TreePath>,
    added: Vec<(TreePath, Addition)>,
    cost: u64,
}

#[derive(Debug)]
enum Addition {
    Inode(Inode),
    HardLink(TreePath),
}

/// Reads a layer, checks its digest, and makes its contents readable at random.
pub(crate) fn read(layer: &Layer, workspace: &mut Workspace<'_>) -> Result<Changes, LayerError> {
    let (blob_digest, archive_digest) = match &layer.check {
        Check::Blob(digest) => (Some(digest.clone()), None),
        Check::Archive(digest) => (None, Some(digest.clone())),
    };
    let compression = Compression::detect(&layer.blob)?;
    let (file, base, copy) = if compression == Compression::None {
        (Arc::clone(layer.blob.file()), layer.blob.offset(), None)
    } else {
        let file = Arc::new(temporary_file(workspace.directory)?);
        (Arc::clone(&file), 0, Some(file))
    };
    let blob = HashingReader::new(layer.blob.reader(), blob_digest);
    let archive = HashingReader::new(
        Decoder::new(compression, blob).map_err(LayerError::Read)?,
        archive_digest,
    );
    let mut tee = Tee::new(archive, copy, &mut workspace.left);

    let mut changes = Changes::default();
    let outcome = changes
        .read(&mut tee, &file, base, workspace.metadata_limit)
        .and_then(|()| tee.drain().map_err(LayerError::Read));
    let (archive, failure) = tee.into_parts();
    if let Some(failure) = failure {
        return Err(workspace.failed(failure));
    }
    let (decoder, archive_verdict) = archive.into_verdict();
    let mut blob = decoder.into_inner();
    blob.drain().map_err(LayerError::Read)?;
    // A damaged blob may look like anything, so a wrong digest explains a failure better than the failure itself.
    blob.into_verdict().1?;
    outcome?;
    archive_verdict?;
    Ok(changes)
}

impl From<DigestMismatch> for LayerError {
    fn from(mismatch: DigestMismatch) -> Self {
        Self::Digest {
            expected: mismatch.expected.to_string(),
            actual: mismatch.actual.to_string(),
        }
    }
}

impl Changes {
    /// Takes over every entry of an archive whose contents can be read later in `file` from `base` on.
    fn read(
        &mut self,
        archive: &mut Tee<'_, impl io::Read>,
        file: &Arc<File>,
        base: u64,
        limit: u64,
    ) -> Result<(), LayerError> {
        let mut reader = tar::Reader::new(archive);
        while let Some(entry) = reader.next().map_err(LayerError::Tar)? {
            let name = entry.name.clone();
            self.add(entry, file, base).map_err(|source| LayerError::Entry {
                name: name.escape_ascii().to_string(),
                source,
            })?;
            if self.cost > limit {
                return Err(LayerError::TooMuchMetadata(limit));
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: Entry, file: &Arc<File>, base: u64) -> Result<(), TreeError> {
        let path = TreePath::parse(&entry.name)?;
        self.cost += CHANGE_COST + path.as_bytes().len() as u64;
        let name = path.split().map_or(&[][..], |(_, name)| name);
        if name == OPAQUE {
            self.emptied.push(path.parent());
            return Ok(());
        }
        if path.as_bytes().starts_with(AUFS) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(TreeError::Whiteout);
            }
            self.removed.push(path.with_name(hidden));
            return Ok(());
        }
        let node = match entry.kind {
            Kind::HardLink(target) => {
                self.cost += target.len() as u64;
                let target = TreePath::parse(&target)?;
                self.added.push((path, Addition::HardLink(target)));
                return Ok(());
            }
            Kind::Directory => Node::Directory(Children::new()),
            Kind::File(data) => Node::File(Content::Layer {
                file: Arc::clone(file),
                base,
                data,
            }),
            Kind::Symlink(target) => Node::Symlink(target.into()),
            Kind::Device(device) => Node::Device(device),
        };
        let inode = Inode {
            attributes: entry.attributes,
            node,
            xattrs: entry.xattrs,
        };
        self.cost += inode.cost();
        self.added.push((path, Addition::Inode(inode)));
        Ok(())
    }

    /// Changes the file system made by the layers below.
    pub(crate) fn apply(self, tree: &mut Tree) -> Result<(), LayerError> {
        let error = |path: &TreePath, source| LayerError::Entry {
            name: path.to_string(),
            source,
        };
        for path in &self.emptied {
            tree.clear(path).map_err(|source| error(path, source))?;
        }
        for path in &self.removed {
            tree.remove(path).map_err(|source| error(path, source))?;
        }
        for (path, addition) in self.added {
            match addition {
                Addition::Inode(inode) => tree.insert(&path, inode).map(|_| ()),
                Addition::HardLink(target) => tree.link(&path, &target),
            }
            .map_err(|source| error(&path, source))?;
        }
        Ok(())
    }
}
