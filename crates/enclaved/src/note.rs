//! What is written down of an enclave, so that it survives the daemon.
//!
//! Each enclave's directory holds a note: what the registry knows of the enclave, and which process is its VMM. It is
//! written when the VMM has been started and again when the enclave has booted, each time as a whole. A daemon that starts
//! reads the notes that the one before it left (see [`crate::inheritance`]).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use api::Measurements;
use api::vmm::VsockBackend;
use serde::{Deserialize, Serialize};

use crate::ids::EnclaveId;
use crate::process_identity::ProcessIdentity;
use crate::vmm_user::VmmUser;

const NOTE_FILE: &str = "enclave.json";
const UNFINISHED_NOTE: &str = "enclave.json.new";

/// Far more than any note takes, in bytes.
const MAX_NOTE: u64 = 64 << 10;

/// The form of the notes that this daemon writes. One that reads another ends the enclave rather than guess.
const FORMAT: u32 = 2;

/// Everything a daemon needs to take over an enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    format: u32,
    /// What was granted.
    pub enclave: Facts,
    /// The enclave's VMM.
    pub vmm: ProcessIdentity,
    /// The user that it runs as, unless that is the daemon's.
    #[serde(default)]
    pub vmm_user: Option<VmmUser>,
    /// What was measured; present exactly if the enclave has booted.
    pub measurements: Option<Measurements>,
}

/// What is fixed when an enclave is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The enclave's id.
    pub id: EnclaveId,
    /// Its name.
    pub name: String,
    /// Its vsock address.
    pub cid: u32,
    /// The parent's CPUs that it holds, in vCPU order.
    pub cpu_ids: Vec<u32>,
    /// Its memory in MiB.
    pub memory_mib: u64,
    /// Whether it has a console.
    pub debug_mode: bool,
    /// What carries its vsock.
    pub vsock: VsockBackend,
    /// When it was admitted, in milliseconds since 1970.
    pub created: u64,
    /// The user that has started it, if that was written down.
    #[serde(default)]
    pub owner: Option<u32>,
}

/// Why a note cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// It cannot be read.
    #[error("its note cannot be read")]
    Io(#[from] io::Error),
    /// It is no note.
    #[error("its note is damaged")]
    Malformed(#[from] serde_json::Error),
    /// It was written by a daemon of another kind.
    #[error("its note has the format {0}, and this daemon knows {FORMAT}")]
    Format(u32),
}

impl Note {
    /// A note on an enclave that boots.
    pub fn new(enclave: Facts, vmm: ProcessIdentity, vmm_user: Option<VmmUser>) -> Self {
        Self {
            format: FORMAT,
            enclave,
            vmm,
            vmm_user,
            measurements: None,
        }
    }

    /// Writes the note into the enclave's `directory`, in the place of the one that is there.
    ///
    /// # Errors
    /// If a file cannot be made. The old note is then still there.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let unfinished = directory.join(UNFINISHED_NOTE);
        fs::write(&unfinished, serde_json::to_vec(self)?)?;
        fs::rename(&unfinished, directory.join(NOTE_FILE))
    }

    /// Reads the note in `directory`.
    ///
    /// # Errors
    /// [`NoteError`].
    pub fn read(directory: &Path) -> Result<Self, NoteError> {
        let mut text = Vec::new();
        File::open(directory.join(NOTE_FILE))?
            .take(MAX_NOTE)
            .read_to_end(&mut text)?;
        let note: Self = serde_json::from_slice(&text)?;
        if note.format == FORMAT {
            Ok(note)
        } else {
            Err(NoteError::Format(note.format))
        }
    }
}

/// The VMM that a note names which is otherwise of no use: damaged, or written by another version.
pub(crate) fn vmm_of_damaged(directory: &Path) -> Option<ProcessIdentity> {
    #[derive(Deserialize)]
    struct Damaged {
        vmm: ProcessIdentity,
    }
    let mut text = Vec::new();
    let file = File::open(directory.join(NOTE_FILE)).ok()?;
    file.take(MAX_NOTE).read_to_end(&mut text).ok()?;
    Some(serde_json::from_slice::<Damaged>(&text).ok()?.vmm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm_user::VmmUsers;

    fn note() -> Note {
        let facts = Facts {
            id: "i-0-enc1".parse().unwrap(),
            name: "hello".into(),
            cid: 16,
            cpu_ids: vec![2, 3],
            memory_mib: 512,
            debug_mode: true,
            vsock: VsockBackend::Kernel,
            created: 1,
            owner: Some(1000),
        };
        let user = VmmUsers::from(1000).of(&facts.cpu_ids);
        let vmm = ProcessIdentity::of(std::process::id()).unwrap();
        Note::new(facts, vmm, user)
    }

    #[test]
    fn what_is_written_is_read_and_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        note().write(directory.path()).unwrap();
        let mut longer = note();
        longer.enclave.name = "x".repeat(1000);
        longer.write(directory.path()).unwrap();
        note().write(directory.path()).unwrap();

        assert_eq!(Note::read(directory.path()).unwrap(), note());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_a_damaged_and_a_foreign_note_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let read = || Note::read(directory.path()).unwrap_err();
        assert!(matches!(read(), NoteError::Io(_)));
        for damaged in ["", "{", "[]", "{\"format\":2}"] {
            fs::write(directory.path().join(NOTE_FILE), damaged).unwrap();
            assert!(matches!(read(), NoteError::Malformed(_)), "{damaged}");
        }
        let foreign = Note { format: 7, ..note() };
        foreign.write(directory.path()).unwrap();
        assert!(matches!(read(), NoteError::Format(7)));
    }
}
