//! What `run-enclave` is asked for, from its options or from the JSON file of `--config`.
//!
//! Both become one [`Wanted`]. The rules are AWS's: options are E03 where they are no numbers; of a configuration, a key that
//! is missing, mistyped or no JSON is E17, both ways of choosing CPUs are E02, neither is E01, and keys that are not known
//! are passed over.

use std::io::Read;
use std::path::{Path, PathBuf};

use api::vmm::VsockBackend;
use api::{CpuSelection, ErrorCode, Failure};
use serde::Deserialize;

use crate::arguments::RunEnclave;
use crate::error::CommandError;
use crate::files::open_readable;
use crate::values;

/// The most bytes that a configuration may have; far more than its keys take.
const CONFIGURATION_LIMIT: u64 = 1 << 20;

/// An enclave to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) eif_path: PathBuf,
    pub(crate) memory_mib: u64,
    pub(crate) cpus: CpuSelection,
    pub(crate) cid: Cid,
    /// None to name it after its image.
    pub(crate) name: Option<String>,
    pub(crate) debug_mode: bool,
    pub(crate) attach_console: bool,
    /// None to leave it to the daemon.
    pub(crate) vsock: Option<VsockBackend>,
}

/// Which CID was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cid {
    /// Nothing was said of it.
    NotSaid,
    /// 0: it is to be chosen.
    Chosen,
    /// This one.
    Fixed(u32),
}

impl Wanted {
    /// What the command line asks for.
    ///
    /// # Errors
    /// E03 of options; of a configuration E01, E02, E17, and E19 if it cannot be read; as a failed enclave, E29 for a CID
    /// that no enclave can have.
    pub(crate) fn from_options(options: &RunEnclave) -> Result<Self, CommandError> {
        let wanted = match &options.config {
            Some(path) => Configuration::read(path)?.into_wanted()?,
            None => Self::from_command_line(options)?,
        };
        // With `--config` AWS's takes the option and does nothing about it.
        let attach_console = wanted.attach_console || options.attach_console;
        Ok(Self {
            debug_mode: wanted.debug_mode || attach_console,
            attach_console,
            ..wanted
        })
    }

    fn from_command_line(options: &RunEnclave) -> Result<Self, Failure> {
        // clap has seen to it that both are there.
        let (Some(eif_path), Some(memory)) = (&options.eif_path, &options.memory) else {
            let message = "Give the image with `--eif-path` and the memory with `--memory`";
            return Err(Failure::new(ErrorCode::MissingArgument, message));
        };
        let memory_mib = values::memory_mib(memory)?;
        let cpus = match (&options.cpu_count, &options.cpu_ids) {
            (Some(count), _) => CpuSelection::Count(values::cpu_count(count)?),
            (None, ids) => CpuSelection::Ids(values::cpu_ids(ids.as_deref().unwrap_or_default())?),
        };
        let cid = match &options.enclave_cid {
            Some(text) => values::enclave_cid(text)?.map_or(Cid::Chosen, Cid::Fixed),
            None => Cid::NotSaid,
        };
        Ok(Self {
            eif_path: eif_path.clone(),
            memory_mib,
            cpus,
            cid,
            name: options.enclave_name.clone(),
            debug_mode: options.debug_mode,
            attach_console: options.attach_console,
            vsock: options.vsock.map(VsockBackend::from),
        })
    }

    /// The name to ask for.
    pub(crate) fn enclave_name(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => name_from_path(&self.eif_path),
        }
    }
}

/// The file name without its `.eif` endings: `/srv/hello.eif` and `hello.eif.eif` both give `hello`.
fn name_from_path(eif_path: &Path) -> String {
    let file_name = eif_path.file_name().unwrap_or_default().to_string_lossy();
    file_name.trim_end_matches(".eif").to_owned()
}

/// The keys of a configuration.
#[derive(Debug, Deserialize)]
struct Configuration {
    eif_path: PathBuf,
    memory_mib: u64,
    cpu_count: Option<u32>,
    cpu_ids: Option<Vec<u32>>,
    enclave_cid: Option<u64>,
    enclave_name: Option<String>,
    #[serde(default)]
    debug_mode: bool,
    #[serde(default)]
    attach_console: bool,
    vsock: Option<VsockBackend>,
}

impl Configuration {
    fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: &std::io::Error| {
            let context = format!("Cannot read the configuration `{}`", path.display());
            Failure::caused_by(ErrorCode::FileOperation, &context, error)
        };
        let file = open_readable(path).map_err(|error| unreadable(&error))?;
        let mut text = Vec::new();
        let length = file
            .take(CONFIGURATION_LIMIT + 1)
            .read_to_end(&mut text)
            .map_err(|error| unreadable(&error))?;
        let wrong = |reason: &str| {
            let message = format!("The configuration `{}` is of no use: {reason}", path.display());
            Failure::new(ErrorCode::Serde, message)
        };
        if length as u64 > CONFIGURATION_LIMIT {
            return Err(wrong(&format!("it has more than {CONFIGURATION_LIMIT} bytes")));
        }
        serde_json::from_slice(&text).map_err(|error| {
            wrong(&format!(
                "{error}. `nitro-cli run-enclave --help` shows how one looks"
            ))
        })
    }

    fn into_wanted(self) -> Result<Wanted, CommandError> {
        let cpus = match (self.cpu_count, self.cpu_ids) {
            (Some(count), None) => CpuSelection::Count(count),
            (None, Some(ids)) => CpuSelection::Ids(ids),
            (Some(_), Some(_)) => {
                let message = "The configuration has both `cpu_count` and `cpu_ids`. Take one of them out";
                return Err(Failure::new(ErrorCode::ConflictingArgument, message).into());
            }
            (None, None) => {
                let message = "The configuration has neither `cpu_count` nor `cpu_ids`. Add one of them";
                return Err(Failure::new(ErrorCode::MissingArgument, message).into());
            }
        };
        // Not the option's check: AWS leaves this one to the driver.
        let cid = match self.enclave_cid {
            None => Cid::NotSaid,
            Some(0) => Cid::Chosen,
            Some(cid) => Cid::Fixed(u32::try_from(cid).map_err(|_| {
                let message = format!("No enclave can have the CID {cid}: choose one from 4 to 4294967294");
                CommandError::EnclaveFailed(Failure::new(ErrorCode::IoctlFailure, message))
            })?),
        };
        Ok(Wanted {
            eif_path: self.eif_path,
            memory_mib: self.memory_mib,
            cpus,
            cid,
            name: self.enclave_name,
            debug_mode: self.debug_mode,
            attach_console: self.attach_console,
            vsock: self.vsock,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enclave_is_named_after_its_image() {
        let cases = [
            ("hello.eif", "hello"),
            ("/srv/images/hello.eif", "hello"),
            ("hello.eif.eif", "hello"),
            ("hello.v2.eif", "hello.v2"),
            ("hello", "hello"),
            ("hello.eif.bak", "hello.eif.bak"),
        ];
        for (path, name) in cases {
            assert_eq!(name_from_path(Path::new(path)), name, "{path}");
        }
    }
}
