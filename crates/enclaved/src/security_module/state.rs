//! The registers of one enclave in its directory, so that they survive the daemon.
//!
//! The file is replaced as a whole before a change is answered. With the registers goes the last request that changed them,
//! and its response: a VMM that asks again because the daemon died meanwhile gets that, and the change is not made twice.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nsm::{PcrBank, Snapshot, SnapshotError};
use serde::{Deserialize, Serialize};

const FILE: &str = "pcrs.json";
const UNFINISHED: &str = "pcrs.json.new";

/// Thirty-two registers and a response take a tenth of it, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Why registers cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is no JSON of ours.
    #[error("the PCRs that were written down are damaged")]
    Malformed(#[from] serde_json::Error),
    /// It holds registers that no enclave can have.
    #[error("the PCRs that were written down cannot be")]
    Snapshot(#[from] SnapshotError),
}

/// Where the registers are written down, and what was answered last.
#[derive(Debug)]
pub(super) struct State {
    directory: PathBuf,
    last_change: Option<Change>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    pcrs: Snapshot,
    last_change: Option<Change>,
}

/// A request that has changed registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    number: u64,
    response: Vec<u8>,
}

impl State {
    /// Writes down the first registers.
    pub(super) fn create(directory: &Path, bank: &PcrBank) -> Result<Self, StateError> {
        let state = Self {
            directory: directory.to_owned(),
            last_change: None,
        };
        state.replace(&Written {
            pcrs: Snapshot::from(bank),
            last_change: None,
        })?;
        Ok(state)
    }

    /// Reads what an earlier daemon has written.
    pub(super) fn load(directory: &Path) -> Result<(Self, PcrBank), StateError> {
        let path = directory.join(FILE);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut text))
            .map_err(failed("read", &path))?;
        let written: Written = serde_json::from_slice(&text)?;
        let bank = PcrBank::try_from(&written.pcrs)?;
        let state = Self {
            directory: directory.to_owned(),
            last_change: written.last_change,
        };
        Ok((state, bank))
    }

    /// The response to a request that was the last to change registers.
    pub(super) fn response_to(&self, number: u64) -> Option<&[u8]> {
        let change = self.last_change.as_ref()?;
        (change.number == number).then_some(change.response.as_slice())
    }

    /// Writes down the registers as request `number` makes them.
    pub(super) fn write(&mut self, pcrs: &Snapshot, number: u64, response: &[u8]) -> Result<(), StateError> {
        let change = Change {
            number,
            response: response.to_vec(),
        };
        self.replace(&Written {
            pcrs: pcrs.clone(),
            last_change: Some(change.clone()),
        })?;
        self.last_change = Some(change);
        Ok(())
    }

    fn replace(&self, written: &Written) -> Result<(), StateError> {
        let text = serde_json::to_vec(written)?;
        let unfinished = self.directory.join(UNFINISHED);
        let path = self.directory.join(FILE);
        let write = || {
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)?;
            file.write_all(&text)?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(failed("write", &path))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io { action, path, source }
}
