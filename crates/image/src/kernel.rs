//! The parts of an enclave that do not come from the user's image: kernel, command line, init.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::ImageError;

/// How much of a kernel configuration is read to find its third line.
const CONFIG_PREFIX: u64 = 64 << 10;

/// Files of the directory that `NITRO_CLI_BLOBS` names, laid out as AWS's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blobs {
    /// `bzImage`, or an ELF vmlinux: nothing here looks into it.
    pub kernel: PathBuf,
    /// `bzImage.config`: the kernel's configuration, for its version.
    pub kernel_config: PathBuf,
    /// `cmdline`: the kernel's command line. White space around it is dropped.
    pub cmdline: PathBuf,
    /// `init`: the first program of the enclave.
    pub init: PathBuf,
    /// `nsm.ko`: the NSM driver, for kernels that have it as a module.
    pub nsm_module: Option<PathBuf>,
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
    /// [`ImageError::MissingBlob`] for the first that is missing; `nsm.ko` may be.
    pub fn in_directory(directory: &Path) -> Result<Self, ImageError> {
        let file = |name: &str, purpose| {
            let path = directory.join(name);
            if path.is_file() {
                Ok(path)
            } else {
                Err(ImageError::MissingBlob { path, purpose })
            }
        };
        Ok(Self {
            kernel: file("bzImage", "the enclave's kernel")?,
            kernel_config: file("bzImage.config", "the configuration of the enclave's kernel")?,
            cmdline: file("cmdline", "the command line of the enclave's kernel")?,
            init: file("init", "the first program of the enclave")?,
            nsm_module: file("nsm.ko", "the NSM driver").ok(),
        })
    }

    pub(crate) fn read_cmdline(&self) -> Result<String, ImageError> {
        Ok(fs::read_to_string(&self.cmdline)
            .map_err(read_error(&self.cmdline))?
            .trim()
            .to_owned())
    }

    /// Takes the version from line 3, `# Linux/x86_64 6.12.0 Kernel Configuration`, split as AWS's tools split it.
    pub(crate) fn read_version(&self) -> Result<KernelVersion, ImageError> {
        let file = open(&self.kernel_config)?.take(CONFIG_PREFIX);
        let line = BufReader::new(file)
            .split(b'\n')
            .nth(2)
            .transpose()
            .map_err(read_error(&self.kernel_config))?;
        let line = String::from_utf8_lossy(line.as_deref().unwrap_or_default()).into_owned();
        let mut words = line.split([' ', '/', '-']);
        match (words.nth(1), words.nth(1)) {
            (Some(system), Some(version)) if !system.is_empty() && !version.is_empty() => Ok(KernelVersion {
                operating_system: system.to_owned(),
                version: version.to_owned(),
            }),
            _ => Err(ImageError::KernelConfig(self.kernel_config.clone())),
        }
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
    fn a_missing_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let complete = blobs(directory.path(), "");
        assert_eq!(complete.nsm_module, None);
        assert_eq!(complete.read_cmdline().unwrap(), "a b");
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
