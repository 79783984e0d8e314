//! Where images come from, and what is read from each before any layer is.
//!
//! | source | recognised by | module |
//! |---|---|---|
//! | OCI image layout, directory or tar | `oci-layout` or `index.json` | `oci` |
//! | archive of `docker save`, unpacked or not | `manifest.json` | `docker` |
//! | root file system | any other directory, or `rootfs/` beside `cmd` | `rootfs` |
//! | registry | given as such; blobs are fetched when they are asked for | `oci` |
//! | open archive, from a container engine | given as such | `oci`, `docker` |
//!
//! A root file system that has a file of one of these names at its top must therefore be given as `rootfs/` beside `cmd`.
//! Recent versions of `docker save` write archives that are both; they are read as OCI layouts. Tar archives may be
//! compressed with gzip or zstd. Image files are read where they are, also within an archive (`container`).

mod container;
mod docker;
mod oci;
mod platform;
pub(crate) mod rootfs;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_fetch::{Reference, Repository};

use crate::config::ImageFile;
use crate::kernel::read_error;
use crate::layer::{Layer, Workspace};
use crate::range::FileRange;
use crate::{ImageError, Progress};
use container::Container;

/// An image to build from, recognised but not yet read.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    reference: Option<String>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    ImageDirectory,
    Archive,
    RootFilesystem,
    /// An archive with the image of the reference and no other.
    OpenArchive(Arc<File>),
    Registry(Arc<Repository>),
}

impl Source {
    /// Recognises `PATH` or `PATH:REFERENCE`, where REFERENCE chooses one of several images by tag, name or digest. A path
    /// that exists as it stands is taken as it stands, also when it contains colons.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] if there is nothing at the path.
    pub fn detect(text: impl AsRef<OsStr>) -> Result<Self, ImageError> {
        let text = text.as_ref();
        let (path, reference) = split_reference(text).ok_or_else(|| ImageError::NotFound(text.into()))?;
        let kind = if !path.is_dir() {
            Kind::Archive
        } else if is_image_directory(&path) {
            Kind::ImageDirectory
        } else {
            Kind::RootFilesystem
        };
        match (kind, reference) {
            (Kind::RootFilesystem, Some(_)) => Err(ImageError::NotFound(text.into())),
            (kind, reference) => Ok(Self {
                path,
                reference,
                kind,
            }),
        }
    }

    /// A root file system, even if it happens to contain a file `oci-layout`.
    pub fn root_filesystem(directory: impl Into<PathBuf>) -> Self {
        Self {
            path: directory.into(),
            reference: None,
            kind: Kind::RootFilesystem,
        }
    }

    /// An image in a registry, under the name that the user gave.
    pub fn registry(repository: Repository, name: &str) -> Self {
        Self {
            path: name.into(),
            reference: full_reference(repository.reference(), name),
            kind: Kind::Registry(Arc::new(repository)),
        }
    }

    /// An archive made by `docker save` of one image, under the name that the user gave.
    pub fn open_archive(archive: File, image: &Reference, name: &str) -> Self {
        Self {
            path: name.into(),
            reference: full_reference(image, name),
            kind: Kind::OpenArchive(Arc::new(archive)),
        }
    }

    /// The file or directory; of other images the name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What chooses one of several images.
    pub fn reference(&self) -> Option<&str> {
        self.reference.as_deref()
    }

    /// A name for the EIF: the reference without its tag, or else the name of the file without `.tar` and the like.
    pub fn name(&self) -> String {
        if matches!(self.kind, Kind::OpenArchive(_) | Kind::Registry(_)) {
            let name = self.path.to_string_lossy();
            return without_tag(name.split('@').next().unwrap_or_default()).to_owned();
        }
        if let Some((name, tag)) = self.reference.as_deref().and_then(|text| text.rsplit_once(':'))
            && !tag.contains('/')
        {
            return name.to_owned();
        }
        let name = self
            .path
            .file_name()
            .unwrap_or(self.path.as_os_str())
            .to_string_lossy();
        let name = [".gz", ".zst", ".tgz", ".tar"]
            .iter()
            .fold(&*name, |name, suffix| name.strip_suffix(suffix).unwrap_or(name));
        name.to_owned()
    }

    pub(crate) fn is_root_filesystem(&self) -> bool {
        matches!(self.kind, Kind::RootFilesystem)
    }

    /// Reads what describes a container image. Not for root file systems.
    pub(crate) fn load(
        &self,
        workspace: &mut Workspace<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ContainerImage, ImageError> {
        let mut reference = self.reference();
        let container = match &self.kind {
            Kind::ImageDirectory => Container::directory(&self.path),
            Kind::Registry(repository) => {
                let container = Container::registry(Arc::clone(repository));
                return oci::load_fetched(&container, &repository.resolve()?, workspace, progress);
            }
            Kind::OpenArchive(file) => {
                // What it calls the image depends on the engine.
                reference = None;
                let length = file.metadata().map_err(read_error(&self.path))?.len();
                let file = FileRange::new(Arc::clone(file), 0, length);
                Container::open_archive(&self.path, file, workspace)?
            }
            Kind::Archive | Kind::RootFilesystem => Container::archive(&self.path, workspace)?,
        };
        if container.has("index.json") {
            oci::load(&container, reference, workspace, progress)
        } else if container.has("manifest.json") {
            docker::load(&container, reference)
        } else {
            Err(ImageError::NotAnImage(self.path.clone()))
        }
    }
}

/// A container image whose layers are still to be read.
#[derive(Debug)]
pub(crate) struct ContainerImage {
    pub(crate) config: ImageFile,
    /// From the lowest to the highest.
    pub(crate) layers: Vec<Layer>,
}

impl ContainerImage {
    /// Checks that manifest and configuration list the same number of layers.
    fn check_count(&self, layers: usize) -> Result<(), ImageError> {
        let diff_ids = self.config.rootfs.diff_ids.len();
        if layers == diff_ids {
            Ok(())
        } else {
            Err(ImageError::LayerCount { layers, diff_ids })
        }
    }
}

/// The name that the user gave, with the tag that it stands for; none if only a digest chooses the image.
fn full_reference(image: &Reference, name: &str) -> Option<String> {
    let untagged = without_tag(name.split('@').next().unwrap_or_default());
    image.tag().map(|tag| format!("{untagged}:{tag}"))
}

/// A colon before a slash is a port's.
fn without_tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    }
}

/// Whether a directory is an OCI layout, also one whose marker `oci-layout` was lost, or an unpacked `docker save` archive.
fn is_image_directory(path: &Path) -> bool {
    let has = |name: &str| path.join(name).is_file();
    has("oci-layout") || !rootfs::has_aws_shape(path) && (has("index.json") || has("manifest.json"))
}

/// Splits at the rightmost colon before which there is an existing path; not at all if the whole is one.
fn split_reference(text: &OsStr) -> Option<(PathBuf, Option<String>)> {
    if Path::new(text).exists() {
        return Some((text.into(), None));
    }
    let bytes = text.as_bytes();
    let colons = (0..bytes.len()).rev().filter(|at| bytes[*at] == b':');
    colons
        .map(|at| (Path::new(OsStr::from_bytes(&bytes[..at])), &bytes[at + 1..]))
        .find_map(|(path, rest)| {
            let reference = String::from_utf8(rest.to_vec()).ok()?;
            path.exists().then(|| (path.to_owned(), Some(reference)))
        })
}

/// Whether an image of this name is meant by a reference: the name itself, its tag, or the name without what engines
/// leave out (`docker.io/library/`, `:latest`).
fn is_named(name: &str, reference: &str) -> bool {
    let ends_with = |separator: char| {
        name.strip_suffix(reference)
            .is_some_and(|rest| rest.ends_with(separator))
    };
    let untagged = name.strip_suffix(":latest").unwrap_or(name);
    name == reference
        || ends_with(':')
        || ends_with('/')
        || untagged == reference
        || untagged
            .strip_suffix(reference)
            .is_some_and(|rest| rest.ends_with('/'))
}

/// Names for an error message.
struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("only images without names");
        }
        formatter.write_str(&self.0.join(", "))
    }
}
