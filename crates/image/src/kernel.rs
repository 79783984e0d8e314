//! The parts of an enclave that do not come from the user's image: kernel, command line, init.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::ImageError;

/// How much of a kernel or its configuration is read to find the version.
const CONFIG_PREFIX: u64 = 64 << 10;
/// Much longer than a command line that Linux takes.
const CMDLINE_LIMIT: u64 = 64 << 10;

/// Files of the directory that `NITRO_CLI_BLOBS` names, laid out as AWS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blobs {
    /// `bzImage`, or an ELF vmlinux: nothing here looks into it.
    pub kernel: PathBuf,
    /// `bzImage.config`: the kernel's configuration, for its version. Without one, the version is what a bzImage says.
    pub kernel_config: Option<PathBuf>,
    /// What is in `cmdline`: the kernel's command line, without white space around it.
    pub cmdline: String,
    /// `init`: the first program of the enclave.
    pub init: PathBuf,
    /// `nsm.ko`: the NSM driver, for kernels that have it as a module.
    pub nsm_module: Option<PathBuf>,
}

/// What is not taken from the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobChoice {
    /// A kernel. Its configuration is beside it, with `.config` appended to its name, or nowhere; a driver for it is `nsm.ko`
    /// beside it.
    pub kernel: Option<PathBuf>,
    /// A command line.
    pub cmdline: Option<String>,
    /// The first program of the enclave.
    pub init: Option<PathBuf>,
}

/// What an enclave runs on, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelVersion {
    pub(crate) operating_system: String,
    pub(crate) version: String,
}

impl Blobs {
    /// The files of a blobs directory.
    ///
    /// # Errors
    /// Those of [`find`](Self::find).
    pub fn in_directory(directory: &Path) -> Result<Self, ImageError> {
        Self::find(directory, &BlobChoice::default())
    }

    /// The files of a blobs directory, but for those that are chosen otherwise.
    ///
    /// # Errors
    /// [`ImageError::MissingBlob`] for the first that is missing; `nsm.ko` may be. [`ImageError::Read`] for the command line.
    pub fn find(directory: &Path, choice: &BlobChoice) -> Result<Self, ImageError> {
        let file = |path: PathBuf, purpose| {
            if path.is_file() {
                Ok(path)
            } else {
                Err(ImageError::MissingBlob { path, purpose })
            }
        };
        let (kernel, kernel_config) = if let Some(kernel) = &choice.kernel {
            let mut config = kernel.clone().into_os_string();
            config.push(".config");
            let config = PathBuf::from(config);
            (kernel.clone(), config.is_file().then_some(config))
        } else {
            let config = file(
                directory.join("bzImage.config"),
                "the configuration of the enclave's kernel",
            );
            (directory.join("bzImage"), Some(config?))
        };
        let kernel = file(kernel, "the enclave's kernel")?;
        let cmdline = if let Some(cmdline) = &choice.cmdline {
            cmdline.trim().to_owned()
        } else {
            let path = file(
                directory.join("cmdline"),
                "the command line of the enclave's kernel",
            )?;
            read_cmdline(&path)?
        };
        let init = choice.init.clone().unwrap_or_else(|| directory.join("init"));
        Ok(Self {
            init: file(init, "the first program of the enclave")?,
            nsm_module: file(kernel.with_file_name("nsm.ko"), "the NSM driver").ok(),
            kernel,
            kernel_config,
            cmdline,
        })
    }

    /// The version, from the configuration or else from the kernel itself.
    pub(crate) fn read_version(&self) -> Result<KernelVersion, ImageError> {
        match &self.kernel_config {
            Some(path) => version_in_config(path),
            None => Ok(KernelVersion {
                operating_system: "Linux".to_owned(),
                version: version_in_bzimage(&self.kernel)?.unwrap_or_else(|| "unknown".to_owned()),
            }),
        }
    }
}

fn read_cmdline(path: &Path) -> Result<String, ImageError> {
    let mut text = String::new();
    open(path)?
        .take(CMDLINE_LIMIT)
        .read_to_string(&mut text)
        .map_err(read_error(path))?;
    Ok(text.trim().to_owned())
}

/// What a bzImage says (Linux, `Documentation/arch/x86/boot.rst`: `kernel_version`). None if it is none, or says nothing.
fn version_in_bzimage(path: &Path) -> Result<Option<String>, ImageError> {
    let mut start = Vec::new();
    open(path)?
        .take(CONFIG_PREFIX)
        .read_to_end(&mut start)
        .map_err(read_error(path))?;
    if start.get(0x202..0x206) != Some(b"HdrS") {
        return Ok(None);
    }
    let offset = usize::from(u16::from_le_bytes([start[0x20e], start[0x20f]])) + 0x200;
    let text = start.get(offset..).unwrap_or_default();
    let end = text.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(0);
    let version = String::from_utf8_lossy(&text[..end]).into_owned();
    Ok((!version.is_empty()).then_some(version))
}

/// Takes the version from line 3, `# Linux/x86_64 6.12.0 Kernel Configuration`, split as AWS's tools split it.
fn version_in_config(path: &Path) -> Result<KernelVersion, ImageError> {
    let file = open(path)?.take(CONFIG_PREFIX);
    let line = BufReader::new(file)
        .split(b'\n')
        .nth(2)
        .transpose()
        .map_err(read_error(path))?;
    let line = String::from_utf8_lossy(line.as_deref().unwrap_or_default()).into_owned();
    let mut words = line.split([' ', '/', '-']);
    match (words.nth(1), words.nth(1)) {
        (Some(system), Some(version)) if !system.is_empty() && !version.is_empty() => Ok(KernelVersion {
            operating_system: system.to_owned(),
            version: version.to_owned(),
        }),
        _ => Err(ImageError::KernelConfig(path.to_owned())),
    }
}

pub(crate) fn open(path: &Path) -> Result<File, ImageError> {
    File::open(path).map_err(read_error(path))
}

pub(crate) fn read_error(path: &Path) -> impl Fn(io::Error) -> ImageError {
    move |source| ImageError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn blobs(directory: &Path, config: &str) -> Blobs {
        for (name, contents) in [
            ("bzImage", "K"),
            ("bzImage.config", config),
            ("cmdline", "  a b\n\n"),
            ("init", "I"),
        ] {
            fs::write(directory.join(name), contents).unwrap();
        }
        Blobs::in_directory(directory).unwrap()
    }

    #[test]
    fn the_version_is_on_the_third_line() {
        let directory = tempfile::tempdir().unwrap();
        let read = |config: &str| blobs(directory.path(), config).read_version();
        let good = read(
            "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86_64 6.6.79 Kernel Configuration\n#\n",
        );
        assert_eq!(
            good.unwrap(),
            KernelVersion {
                operating_system: "Linux".into(),
                version: "6.6.79".into()
            }
        );
        for bad in ["", "#\n#\n", "#\n#\n#\n", "#\n#\nCONFIG_X=y\n"] {
            assert!(matches!(read(bad), Err(ImageError::KernelConfig(_))), "{bad:?}");
        }
    }

    #[test]
    fn what_is_chosen_is_not_looked_for_in_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut bzimage = vec![0; 0x202];
        bzimage.extend(b"HdrS");
        bzimage.resize(0x20e, 0);
        bzimage.extend(0x40_u16.to_le_bytes());
        bzimage.resize(0x240, 0);
        bzimage.extend(b"6.1.2-own (me@host) #1\0");
        fs::write(at("own"), &bzimage).unwrap();
        fs::write(at("first"), "I").unwrap();
        let choice = BlobChoice {
            kernel: Some(at("own")),
            cmdline: Some(" c ".into()),
            init: Some(at("first")),
        };
        let found = || Blobs::find(&at("missing"), &choice);
        let version = || found().unwrap().read_version().unwrap().version;

        let blobs = found().unwrap();
        assert_eq!(
            (blobs.cmdline.as_str(), &blobs.init, &blobs.nsm_module),
            ("c", &at("first"), &None)
        );
        assert_eq!(version(), "6.1.2-own");
        fs::write(at("own"), "\x7fELF").unwrap();
        assert_eq!(version(), "unknown");
        fs::write(
            at("own.config"),
            "#\n#\n# Linux/x86_64 6.1.3 Kernel Configuration\n",
        )
        .unwrap();
        assert_eq!(version(), "6.1.3");
        fs::write(at("nsm.ko"), "M").unwrap();
        assert_eq!(
            found().unwrap().nsm_module,
            Some(at("nsm.ko")),
            "beside the kernel that it is for"
        );

        fs::remove_file(at("own")).unwrap();
        assert!(matches!(found(), Err(ImageError::MissingBlob { path, .. }) if path == at("own")));
    }

    #[test]
    fn a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let complete = blobs(directory.path(), "");
        assert_eq!(complete.nsm_module, None);
        assert_eq!(complete.cmdline, "a b");
        for name in ["bzImage", "bzImage.config", "cmdline", "init"] {
            fs::rename(directory.path().join(name), directory.path().join("away")).unwrap();
            let error = Blobs::in_directory(directory.path()).unwrap_err();
            assert!(
                error.to_string().contains(&format!("/{name}` is missing")),
                "{error}"
            );
            fs::rename(directory.path().join("away"), directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("nsm.ko"), "M").unwrap();
        assert!(
            Blobs::in_directory(directory.path())
                .unwrap()
                .nsm_module
                .is_some()
        );
    }
}
