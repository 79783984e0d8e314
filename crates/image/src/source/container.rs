//! A directory or a tar archive, as a set of named files that can be read at random.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_fetch::{DOCUMENT_LIMIT, Digest, Repository};
use serde::de::DeserializeOwned;

use crate::ImageError;
use crate::layer::{Compression, Decoder, LayerError, Tee, Workspace, temporary_file};
use crate::range::FileRange;
use crate::tar::{self, Kind, Layout};
use crate::tree::TreePath;

/// Links followed from one member to another. `docker save` used to link equal layers.
const LINK_LIMIT: usize = 8;
/// Bytes charged for a member of an archive besides its names.
const MEMBER_COST: u64 = 128;

/// The files of an image, wherever they are.
#[derive(Debug)]
pub(super) struct Container {
    path: PathBuf,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Directory,
    /// Files are named by digest only.
    Registry(Arc<Repository>),
    Archive {
        file: FileRange,
        members: BTreeMap<Vec<u8>, Member>,
    },
}

/// An entry of an archive.
#[derive(Debug)]
enum Member {
    File { offset: u64, length: u64 },
    Link(Vec<u8>),
}

impl Container {
    pub(super) fn directory(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            storage: Storage::Directory,
        }
    }

    /// The blobs of an image in a registry, fetched when they are asked for.
    pub(super) fn registry(repository: Arc<Repository>) -> Self {
        Self {
            path: repository.reference().to_string().into(),
            storage: Storage::Registry(repository),
        }
    }

    /// Reads the table of contents of a tar archive.
    pub(super) fn archive(path: &Path, workspace: &mut Workspace<'_>) -> Result<Self, ImageError> {
        let file = FileRange::open(path).map_err(|source| ImageError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::open_archive(path, file, workspace)
    }

    /// Reads the table of contents of a tar archive that messages call `path`. A compressed one is unpacked first.
    pub(super) fn open_archive(
        path: &Path,
        file: FileRange,
        workspace: &mut Workspace<'_>,
    ) -> Result<Self, ImageError> {
        let unpack_error = |source| ImageError::Unpack {
            path: path.to_owned(),
            source,
        };
        let compression = Compression::detect(&file).map_err(unpack_error)?;
        let file = match compression {
            Compression::None => file,
            _ => unpack(&file, compression, workspace).map_err(unpack_error)?,
        };
        let members = match index(&file, workspace.metadata_limit) {
            Ok(Some(members)) => members,
            Ok(None) => {
                return Err(unpack_error(LayerError::TooMuchMetadata(
                    workspace.metadata_limit,
                )));
            }
            Err(tar::TarError::Checksum(0) | tar::TarError::Truncated(0)) => {
                return Err(ImageError::NotAnImage(path.to_owned()));
            }
            Err(source) => {
                return Err(ImageError::Archive {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            path: path.to_owned(),
            storage: Storage::Archive { file, members },
        })
    }

    /// Whether blobs have to be fetched.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self.storage, Storage::Registry(_))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn has(&self, name: &str) -> bool {
        matches!(self.find(name), Ok(Some(_)))
    }

    /// A file by its name, which must be relative and without `..`: callers make it of a constant or a digest, or clean it.
    pub(super) fn open(&self, name: &str) -> Result<FileRange, ImageError> {
        self.find(name)?
            .ok_or_else(|| ImageError::Missing(name.to_owned()))
    }

    /// A whole JSON document.
    pub(super) fn document(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        let range = self.open(name)?;
        if range.len() > DOCUMENT_LIMIT {
            return Err(ImageError::DocumentTooLarge(name.to_owned()));
        }
        let mut bytes = Vec::new();
        range
            .reader()
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Read {
                path: self.path.join(name),
                source,
            })?;
        Ok(bytes)
    }

    /// A blob by its digest, whose size must be as announced. The digest is not checked here. `progress` gets the bytes that
    /// have come so far if it comes from a registry.
    pub(super) fn blob(
        &self,
        digest: &Digest,
        size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<FileRange, ImageError> {
        if let Storage::Registry(repository) = &self.storage {
            let file = repository.blob(digest, size, progress)?;
            return Ok(FileRange::new(Arc::new(file), 0, size));
        }
        let name = digest.blob_path();
        let range = self.open(&name)?;
        if range.len() != size {
            return Err(ImageError::Size {
                name,
                expected: size,
                actual: range.len(),
            });
        }
        Ok(range)
    }

    /// A manifest, or an index of them, with its digest checked.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        match &self.storage {
            Storage::Registry(repository) => Ok(repository.manifest(digest)?.bytes),
            _ => self.blob_document(digest),
        }
    }

    /// A blob that is a JSON document, with its digest checked.
    pub(super) fn blob_document(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        if let Storage::Registry(repository) = &self.storage {
            return Ok(repository.document(digest)?);
        }
        let name = digest.blob_path();
        let bytes = self.document(&name)?;
        digest
            .check(&bytes)
            .map_err(|mismatch| ImageError::digest(&name, &mismatch))?;
        Ok(bytes)
    }

    fn find(&self, name: &str) -> Result<Option<FileRange>, ImageError> {
        match &self.storage {
            Storage::Directory => {
                let path = self.path.join(name);
                match FileRange::open(&path) {
                    Ok(range) => Ok(Some(range)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(source) => Err(ImageError::Read { path, source }),
                }
            }
            Storage::Registry(_) => Ok(None),
            Storage::Archive { file, members } => Ok(find_member(file, members, name.as_bytes())),
        }
    }
}

/// Parses a JSON document of an image.
pub(super) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|source| ImageError::Json {
        name: name.to_owned(),
        source,
    })
}

fn find_member(file: &FileRange, members: &BTreeMap<Vec<u8>, Member>, name: &[u8]) -> Option<FileRange> {
    let mut name = name.to_vec();
    for _ in 0..LINK_LIMIT {
        match members.get(&name)? {
            Member::File { offset, length } => return Some(file.slice(*offset, *length)),
            Member::Link(target) => name.clone_from(target),
        }
    }
    None
}

/// Unpacks a compressed archive into a file without a name.
fn unpack(
    file: &FileRange,
    compression: Compression,
    workspace: &mut Workspace<'_>,
) -> Result<FileRange, LayerError> {
    let copy = Arc::new(temporary_file(workspace.directory)?);
    let before = workspace.left;
    let decoder = Decoder::new(compression, file.reader()).map_err(LayerError::Read)?;
    let mut tee = Tee::new(decoder, Some(Arc::clone(&copy)), &mut workspace.left);
    let outcome = tee.drain();
    let (_, failure) = tee.into_parts();
    if let Some(failure) = failure {
        return Err(workspace.failed(failure));
    }
    outcome.map_err(LayerError::Read)?;
    Ok(FileRange::new(copy, 0, before - workspace.left))
}

/// Where each file of an archive is; a later entry of the same name counts. `None` when the names exceed the limit.
fn index(file: &FileRange, limit: u64) -> Result<Option<BTreeMap<Vec<u8>, Member>>, tar::TarError> {
    let mut reader = tar::Reader::new(file.reader());
    let mut members = BTreeMap::new();
    let mut cost = 0;
    while let Some(entry) = reader.next()? {
        // Names that lead out of the archive cannot be asked for.
        let Ok(name) = TreePath::parse(&entry.name) else {
            continue;
        };
        let member = match entry.kind {
            Kind::File(tar::Data {
                size,
                layout: Layout::Contiguous(offset),
            }) => Member::File { offset, length: size },
            Kind::HardLink(target) => match TreePath::parse(&target) {
                Ok(target) => Member::Link(target.as_bytes().to_vec()),
                Err(_) => continue,
            },
            Kind::Symlink(target) => {
                let target = [name.parent().as_bytes(), b"/", &target].concat();
                match TreePath::parse(&target) {
                    Ok(target) => Member::Link(target.as_bytes().to_vec()),
                    Err(_) => continue,
                }
            }
            Kind::File(_) | Kind::Directory | Kind::Device(_) => continue,
        };
        let link_length = if let Member::Link(target) = &member {
            target.len()
        } else {
            0
        };
        cost += MEMBER_COST + (name.as_bytes().len() + link_length) as u64;
        if cost > limit {
            return Ok(None);
        }
        members.insert(name.as_bytes().to_vec(), member);
    }
    Ok(Some(members))
}
