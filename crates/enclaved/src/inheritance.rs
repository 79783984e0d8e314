//! What the daemon before this one has left: enclaves to take over, and remains to clear away.
//!
//! A VMM outlives its daemon, however that ends. So a starting daemon, which holds the run directory's lock, looks at each
//! enclave's directory:
//!
//! ```text
//!   note (see `note`)      its VMM      what becomes of it
//!   ────────────────────   ──────────   ──────────────────────────────────────────────────────────────
//!   of a booted enclave    lives        taken over: it goes on, with all it holds
//!   of a booted enclave    has ended    told as ended, for the reason in its outcome file; removed
//!   of a booting one       lives        ended: the client that it belonged to went with the daemon; removed
//!   damaged                lives        ended, if the note at least names it; removed
//!   none                   unknown      removed
//! ```

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use crate::ids::EnclaveId;
use crate::note::{self, Note, NoteError};

/// How long a killed process may take to go.
const KILL_TIME_LIMIT: Duration = Duration::from_secs(10);

/// An enclave of an earlier daemon.
#[derive(Debug)]
pub struct Inherited {
    /// What is known of it.
    pub note: Note,
    /// Whether its VMM lives.
    pub lives: bool,
}

/// The booted enclaves that another daemon left in `run_directory`, in order of creation. What is no such enclave is ended
/// and removed; what cannot be is logged.
///
/// # Errors
/// If the directory cannot be read.
pub fn take(run_directory: &Path) -> io::Result<Vec<Inherited>> {
    let mut inherited = Vec::new();
    for entry in fs::read_dir(run_directory)?.flatten() {
        let id: Option<EnclaveId> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let Some(id) = id.filter(|_| is_directory) {
            inherited.extend(look_at(&id, &entry.path()));
        }
    }
    inherited.sort_by_key(|inherited| inherited.note.enclave.created);
    Ok(inherited)
}

/// The enclaves in `run_directory` whose VMM lives, in order of their ids.
///
/// # Errors
/// If the directory cannot be read; one that is not there has none.
pub fn living(run_directory: &Path) -> io::Result<Vec<EnclaveId>> {
    let entries = match fs::read_dir(run_directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let notes = entries
        .flatten()
        .filter_map(|entry| Note::read(&entry.path()).ok());
    let living = notes.filter(|note| note.vmm.open().is_some());
    let mut ids: Vec<EnclaveId> = living.map(|note| note.enclave.id).collect();
    ids.sort_by_key(ToString::to_string);
    Ok(ids)
}

fn look_at(id: &EnclaveId, path: &Path) -> Option<Inherited> {
    match Note::read(path) {
        Ok(note) if note.enclave.id == *id && note.measurements.is_some() => {
            let lives = note.vmm.open().is_some();
            return Some(Inherited { note, lives });
        }
        Ok(note) => {
            if let Some(vmm) = note.vmm.open() {
                end(&vmm, note.vmm.process_id);
            }
        }
        // Nothing was written down yet: the VMM, which lives only as long as its daemon until it has booted, is gone.
        Err(NoteError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(enclave = %id, error = &error as &dyn std::error::Error, "an enclave is given up");
            if let Some(vmm) = note::vmm_of_damaged(path)
                && let Some(process) = vmm.open()
            {
                end(&process, vmm.process_id);
            }
        }
    }
    remove(path);
    None
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Ok(()) => {
            tracing::warn!(path = %path.display(), "cleared what was left of an enclave that had not booted");
        }
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove a leftover directory"),
    }
}

fn end(process: &OwnedFd, process_id: u32) {
    if let Err(error) = rustix::process::pidfd_send_signal(process, Signal::KILL) {
        tracing::warn!(process_id, %error, "cannot kill a leftover VMM");
        return;
    }
    let limit = Timespec::try_from(KILL_TIME_LIMIT).ok();
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    if rustix::event::poll(&mut ended, limit.as_ref()) == Ok(1) {
        tracing::warn!(process_id, "ended the VMM of an enclave that had not booted");
    } else {
        tracing::warn!(
            process_id,
            "a leftover VMM does not end; its CPUs and memory stay taken"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use api::Measurements;
    use api::vmm::VsockBackend;

    use crate::note::Facts;
    use crate::process_identity::ProcessIdentity;

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    /// A directory of an enclave whose VMM is `vmm`.
    fn enclave(run: &Path, id: &str, vmm: ProcessIdentity, booted: bool) -> PathBuf {
        let path = run.join(id);
        fs::create_dir(&path).unwrap();
        let facts = Facts {
            id: id.parse().unwrap(),
            name: "hello".into(),
            cid: 16,
            cpu_ids: vec![1],
            memory_mib: 64,
            debug_mode: false,
            vsock: VsockBackend::Unix,
            created: 0,
            owner: None,
        };
        let mut note = Note::new(facts, vmm, None);
        note.measurements = booted.then(|| Measurements {
            hash_algorithm: String::new(),
            pcr0: String::new(),
            pcr1: String::new(),
            pcr2: String::new(),
            pcr8: None,
        });
        note.write(&path).unwrap();
        path
    }

    #[test]
    fn a_booted_enclave_is_taken_over_and_one_that_booted_is_ended() {
        let run = tempfile::tempdir().unwrap();
        let (mut booted, mut booting) = (sleeper(), sleeper());
        let identity = |child: &Child| ProcessIdentity::of(child.id()).unwrap();
        enclave(run.path(), "i-0-enc1", identity(&booted), true);
        let gone = enclave(run.path(), "i-0-enc2", identity(&booting), false);
        fs::write(run.path().join("enclaved.log"), "kept").unwrap();
        fs::create_dir(run.path().join("backup-encrypted")).unwrap();

        let inherited = take(run.path()).unwrap();

        assert_eq!(inherited.len(), 1);
        assert!(inherited[0].lives);
        assert_eq!(living(run.path()).unwrap(), ["i-0-enc1".parse().unwrap()]);
        assert_eq!(inherited[0].note.enclave.id.to_string(), "i-0-enc1");
        assert!(!booting.wait().unwrap().success());
        assert!(!gone.exists());
        assert!(run.path().join("enclaved.log").exists());
        assert!(run.path().join("backup-encrypted").exists());
        assert!(booted.try_wait().unwrap().is_none());
        booted.kill().unwrap();
        booted.wait().unwrap();
    }

    #[test]
    fn a_process_that_merely_has_the_same_number_is_neither_taken_for_the_vmm_nor_ended() {
        let run = tempfile::tempdir().unwrap();
        let mut other = sleeper();
        let identity = ProcessIdentity {
            start_time: 1,
            ..ProcessIdentity::of(other.id()).unwrap()
        };
        enclave(run.path(), "i-0-enc1", identity.clone(), true);
        enclave(run.path(), "i-0-enc2", identity, false);

        let inherited = take(run.path()).unwrap();

        assert_eq!(inherited.len(), 1);
        assert!(!inherited[0].lives);
        assert!(living(run.path()).unwrap().is_empty());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_vmm_whose_note_is_of_another_version_does_not_go_on_unseen() {
        let run = tempfile::tempdir().unwrap();
        let mut vmm = sleeper();
        let path = enclave(
            run.path(),
            "i-0-enc1",
            ProcessIdentity::of(vmm.id()).unwrap(),
            true,
        );
        let note = path.join("enclave.json");
        let newer = fs::read_to_string(&note)
            .unwrap()
            .replacen('{', "{\"newer\":1,", 1);
        fs::write(&note, newer).unwrap();

        assert!(take(run.path()).unwrap().is_empty());

        assert!(!vmm.wait().unwrap().success());
        assert!(!path.exists());
    }

    #[test]
    fn damaged_and_missing_notes_and_those_of_another_enclave_are_cleared_away() {
        let run = tempfile::tempdir().unwrap();
        for (number, note) in ["", "{}", "null"].iter().enumerate() {
            let enclave = run.path().join(format!("i-0-enc{number}"));
            fs::create_dir(&enclave).unwrap();
            fs::write(enclave.join("enclave.json"), note).unwrap();
        }
        fs::create_dir(run.path().join("i-0-enc7")).unwrap();
        let own = ProcessIdentity {
            boot_id: "an earlier one".into(),
            ..ProcessIdentity::of(std::process::id()).unwrap()
        };
        let moved = enclave(run.path(), "i-0-enc8", own, true);
        fs::rename(moved, run.path().join("i-0-enc9")).unwrap();

        assert!(take(run.path()).unwrap().is_empty());

        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }
}
