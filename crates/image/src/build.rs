//! From a source to an EIF, in one pass over the layers and one over the output.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use atomic_file::AtomicFile;
use eif::{Arch, BuildMetadata, Builder, Measurements, Metadata};
use eif_signature::Signer;
use serde_json::Value;

use crate::ImageError;
use crate::config::{Execution, ImageFile};
use crate::kernel::{Blobs, open};
use crate::layer::{self, Workspace};
use crate::ramdisk::{self, Customer};
use crate::sign;
use crate::source::{Source, rootfs};
use crate::time;
use crate::tree::Tree;

/// Size of writes of the output.
const BUFFER: usize = 1 << 20;
/// Bytes between two reports of progress.
const REPORT_INTERVAL: u64 = 8 << 20;
/// Version of an EIF made of a root file system, which has no id.
const DEFAULT_VERSION: &str = "1.0";

/// How to build. [`Default`] is what `nitro-cli build-enclave` does without further options.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    /// Name in the metadata; [`Source::name`] if none.
    pub name: Option<String>,
    /// Version in the metadata; the image's id in hexadecimal digits if none, `1.0` for a root file system.
    pub version: Option<String>,
    /// The user's own metadata.
    pub custom_metadata: Option<Value>,
    /// Name of the program that builds.
    pub build_tool: String,
    /// Its version.
    pub build_tool_version: String,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970: the build's time, and the newest modification time of a file. Without it
    /// the build has the time of the image and files have those in its layers; in a root file system all have 0.
    pub source_date_epoch: Option<u32>,
    /// Replaces what the image says about how to start, where not empty.
    pub execution: Execution,
    /// Who signs the EIF, if anybody does.
    pub signer: Option<Signer>,
    /// What an image may cost.
    pub limits: Limits,
    /// Where compressed layers are unpacked; the directory of the output if none.
    pub temporary_directory: Option<PathBuf>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            name: None,
            version: None,
            custom_metadata: None,
            build_tool: "nitro-cli".to_owned(),
            build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            source_date_epoch: None,
            execution: Execution::default(),
            signer: None,
            limits: Limits::default(),
            temporary_directory: None,
        }
    }
}

/// What an image may cost the machine that builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that all layers may unpack to (with a compressed archive, the archive too), and bytes of the ramdisks.
    pub unpacked: u64,
    /// Bytes of memory for names and attributes of files.
    pub metadata: u64,
}

impl Default for Limits {
    /// 64 GiB and 1 GiB.
    fn default() -> Self {
        Self {
            unpacked: 64 << 30,
            metadata: 1 << 30,
        }
    }
}

/// What a build is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A layer is being read.
    Layer {
        /// Counted from 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// Layers are coming from a registry, or are found in the cache.
    Pull {
        /// Bytes that are here.
        received: u64,
        /// Bytes of all layers.
        total: u64,
    },
    /// The second ramdisk is being written.
    Write {
        /// Bytes written.
        written: u64,
        /// Bytes of the whole.
        total: u64,
    },
}

/// Something the user should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Warning {
    /// A file loses extended attributes, because Linux has none of such names or sizes.
    #[error(
        "`{path}` loses extended attributes that Linux cannot have, because the name is empty, has a NUL or more than \
         255 bytes, or the value has more than 65536: {}",
        attributes.join(", ")
    )]
    LostAttributes {
        /// The file within the image, escaped.
        path: String,
        /// Names of the attributes, escaped.
        attributes: Vec<String>,
    },
}

/// What was built.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// PCR0, PCR1 and PCR2.
    pub measurements: Measurements,
    /// How the application will be started.
    pub execution: Execution,
    /// What was lost on the way.
    pub warnings: Vec<Warning>,
}

/// Builds an EIF at `output`, which appears when it is complete or not at all.
///
/// Equal sources, blobs and options give equal bytes.
///
/// # Errors
/// Every variant of [`ImageError`] but [`ImageError::NotFound`].
pub fn build(
    source: &Source,
    blobs: &Blobs,
    options: &BuildOptions,
    output: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<BuildReport, ImageError> {
    let output = AtomicFile::create(output)?;
    let directory = options
        .temporary_directory
        .as_deref()
        .unwrap_or(output.directory());
    let report = write(source, blobs, options, directory, output.file(), progress)?;
    output.commit()?;
    Ok(report)
}

/// What [`build`] would report, without an EIF. Compressed layers are unpacked in the system's directory for temporary files
/// if the options name no other.
///
/// # Errors
/// Every variant of [`ImageError`] but [`ImageError::NotFound`] and [`ImageError::Output`].
pub fn measure(
    source: &Source,
    blobs: &Blobs,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<BuildReport, ImageError> {
    let system = std::env::temp_dir();
    let directory = options.temporary_directory.as_deref().unwrap_or(&system);
    write(source, blobs, options, directory, Nowhere::default(), progress)
}

/// Makes an EIF of a source.
fn write(
    source: &Source,
    blobs: &Blobs,
    options: &BuildOptions,
    directory: &Path,
    output: impl Write + Seek,
    progress: &mut dyn FnMut(Progress),
) -> Result<BuildReport, ImageError> {
    let image = read(source, options, directory, progress)?;
    let metadata = metadata(source, image.file.as_ref(), blobs, options)?;

    let newest = options.source_date_epoch.unwrap_or(u32::MAX);
    let customer = Customer::new(image.tree, &image.execution, newest)?;
    let warnings = customer
        .lost_attributes
        .iter()
        .cloned()
        .map(|(path, attributes)| Warning::LostAttributes { path, attributes })
        .collect();
    let measurements = assemble(output, &metadata, blobs, &customer, options, progress)?;
    Ok(BuildReport {
        measurements,
        execution: image.execution,
        warnings,
    })
}

/// A source, read.
struct Image {
    tree: Tree,
    execution: Execution,
    /// None for a root file system.
    file: Option<ImageFile>,
}

fn read(
    source: &Source,
    options: &BuildOptions,
    directory: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Image, ImageError> {
    let limits = options.limits;
    if source.is_root_filesystem() {
        let mtime = options.source_date_epoch.unwrap_or(0);
        let (tree, mut execution) = rootfs::read(source.path(), mtime, limits.metadata)?;
        execution.override_with(&options.execution);
        if execution.command.is_empty() {
            execution.command.extend(rootfs::default_command(&tree));
        }
        if execution.command.is_empty() {
            return Err(ImageError::NoCommand(
                "the directory has neither /sbin/init nor /init; give a command, or put the root file system into \
                 `rootfs` and a file `cmd` with one argument per line beside it",
            ));
        }
        return Ok(Image {
            tree,
            execution,
            file: None,
        });
    }
    let mut workspace = Workspace {
        directory,
        limit: limits.unpacked,
        left: limits.unpacked,
        metadata_limit: limits.metadata,
    };
    let image = source.load(&mut workspace, progress)?;
    let mut execution = image.config.execution.clone();
    execution.override_with(&options.execution);
    if execution.command.is_empty() {
        return Err(ImageError::NoCommand("the image has neither ENTRYPOINT nor CMD"));
    }
    let mut tree = Tree::new(limits.metadata);
    let count = image.layers.len();
    for (number, layer) in (1..).zip(&image.layers) {
        progress(Progress::Layer { number, count });
        layer::read(layer, &mut workspace)
            .and_then(|changes| changes.apply(&mut tree))
            .map_err(|source| ImageError::Layer {
                number,
                count,
                source,
            })?;
    }
    Ok(Image {
        tree,
        execution,
        file: Some(image.config),
    })
}

fn metadata(
    source: &Source,
    image: Option<&ImageFile>,
    blobs: &Blobs,
    options: &BuildOptions,
) -> Result<Metadata, ImageError> {
    let kernel = blobs.read_version()?;
    let build_time = match options.source_date_epoch {
        Some(epoch) => time::rfc3339(epoch),
        None => image
            .and_then(|image| image.created.clone())
            .unwrap_or_else(|| time::rfc3339(0)),
    };
    let image_version = options.version.clone().unwrap_or_else(|| {
        image.map_or_else(|| DEFAULT_VERSION.to_owned(), |image| image.id.hex().to_owned())
    });
    Ok(Metadata {
        image_name: options.name.clone().unwrap_or_else(|| source.name()),
        image_version,
        build_metadata: BuildMetadata {
            build_time,
            build_tool: options.build_tool.clone(),
            build_tool_version: options.build_tool_version.clone(),
            operating_system: kernel.operating_system,
            kernel_version: kernel.version,
        },
        docker_info: image.map(|image| image.docker_info(source.reference())),
        custom_metadata: options.custom_metadata.clone(),
    })
}

/// Writes the EIF. Ramdisks are made while they are written: their bytes are read, measured and written once.
fn assemble(
    output: impl Write + Seek,
    metadata: &Metadata,
    blobs: &Blobs,
    customer: &Customer,
    options: &BuildOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Measurements, ImageError> {
    let total = customer.size()?;
    let limit = options.limits.unpacked;
    if total > limit {
        return Err(ImageError::TooLarge { size: total, limit });
    }
    let mut kernel = open(&blobs.kernel)?;
    let mut builder = Builder::new(
        output,
        Arch::X86_64,
        &mut kernel,
        blobs.cmdline.as_bytes(),
        metadata,
    )
    .map_err(ImageError::Eif)?;
    let flush_error = |source| ImageError::Eif(eif::WriteError::Output(source));

    let mut bootstrap = BufWriter::with_capacity(BUFFER, builder.ramdisk().map_err(ImageError::Eif)?);
    ramdisk::write_bootstrap(blobs, &mut bootstrap)?;
    bootstrap.flush().map_err(flush_error)?;
    drop(bootstrap);

    let section = Counter {
        inner: builder.ramdisk().map_err(ImageError::Eif)?,
        written: 0,
        reported: 0,
        total,
        progress,
    };
    let mut section = BufWriter::with_capacity(BUFFER, section);
    customer.write(&mut section)?;
    section.flush().map_err(flush_error)?;
    drop(section);
    if let Some(signer) = &options.signer {
        sign::add_signature(&mut builder, signer)?;
    }
    builder.finish().map_err(ImageError::Eif)
}

/// Takes what is written and keeps only how far it went.
#[derive(Debug, Default)]
struct Nowhere {
    position: u64,
}

impl Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Nowhere {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::Current(offset) => self
                .position
                .checked_add_signed(offset)
                .ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::End(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.position)
    }
}

/// Reports how much was written.
struct Counter<'a, W> {
    inner: W,
    written: u64,
    reported: u64,
    total: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl<W: Write> Write for Counter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.written += count as u64;
        if self.written - self.reported >= REPORT_INTERVAL || self.written == self.total {
            self.reported = self.written;
            (self.progress)(Progress::Write {
                written: self.written,
                total: self.total,
            });
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
