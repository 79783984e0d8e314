//! What a daemon that was killed leaves behind, and how the next one clears it.
//!
//! A VMM outlives a killed daemon, holding CPUs and hugepages that no registry knows of. So every enclave's directory
//! names its VMM, by process id and start time (field 22 of `/proc/<pid>/stat`): a process id alone may by now belong
//! to somebody else. A starting daemon, which holds the run directory's lock, ends these processes and removes their
//! directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::ids::EnclaveId;

const IDENTITY_FILE: &str = "vmm.process";

/// How long a killed process may take to go.
const KILL_TIME_LIMIT: Duration = Duration::from_secs(10);

/// Writes down which process runs the enclave of `directory`.
///
/// # Errors
/// If the process is gone or the file cannot be written.
pub fn note_process(directory: &Path, process_id: u32) -> io::Result<()> {
    let start = start_time(process_id).ok_or(io::ErrorKind::NotFound)?;
    fs::write(directory.join(IDENTITY_FILE), format!("{process_id} {start}\n"))
}

/// Whether the VMM that `directory` notes runs. A directory without a note has none yet or no more.
pub fn is_alive(directory: &Path) -> bool {
    noted_process(directory).is_some_and(|(process_id, start)| start_time(process_id) == Some(start))
}

/// The ids of the enclaves in `run_directory` whose VMM runs, in order.
///
/// # Errors
/// If the directory cannot be read; one that is not there has none.
pub fn living(run_directory: &Path) -> io::Result<Vec<String>> {
    let directories = match enclave_directories(run_directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directories => directories?,
    };
    let living = directories.iter().filter(|directory| is_alive(directory));
    let mut ids: Vec<String> = living
        .filter_map(|directory| Some(directory.file_name()?.to_str()?.to_owned()))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Ends the VMMs and removes the directories of enclaves that another daemon left in `run_directory`.
///
/// # Errors
/// If the directory cannot be read. What cannot be ended or removed is logged.
pub fn clear(run_directory: &Path) -> io::Result<()> {
    for path in enclave_directories(run_directory)? {
        end_noted_process(&path);
        match fs::remove_dir_all(&path) {
            Ok(()) => tracing::warn!(path = %path.display(), "cleared an enclave that a killed daemon left"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a leftover directory");
            }
        }
    }
    Ok(())
}

/// The directories in `run_directory` that are named like an enclave.
fn enclave_directories(run_directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for entry in fs::read_dir(run_directory)?.flatten() {
        let is_enclave = entry.file_name().to_str().is_some_and(EnclaveId::is_one);
        if is_enclave && entry.file_type()?.is_dir() {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

fn end_noted_process(directory: &Path) {
    let Some((process_id, start)) = noted_process(directory) else {
        return;
    };
    let Some(pid) = i32::try_from(process_id).ok().and_then(Pid::from_raw) else {
        return;
    };
    // From here on `process` means one process for good; the check then shows whether it is the noted one.
    let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    if start_time(process_id) != Some(start) {
        return;
    }
    if let Err(error) = rustix::process::pidfd_send_signal(&process, Signal::KILL) {
        tracing::warn!(process_id, %error, "cannot kill a leftover VMM");
        return;
    }
    let limit = Timespec::try_from(KILL_TIME_LIMIT).ok();
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    if rustix::event::poll(&mut ended, limit.as_ref()) == Ok(1) {
        tracing::warn!(process_id, "killed a leftover VMM");
    } else {
        tracing::warn!(
            process_id,
            "a leftover VMM does not end; its CPUs and memory stay taken"
        );
    }
}

fn noted_process(directory: &Path) -> Option<(u32, u64)> {
    let text = fs::read_to_string(directory.join(IDENTITY_FILE)).ok()?;
    let (process_id, start) = text.trim().split_once(' ')?;
    Some((process_id.parse().ok()?, start.parse().ok()?))
}

/// When the process started, in clock ticks since the machine did.
fn start_time(process_id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // The second field, the command in parentheses, may hold anything; the third follows the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    #[test]
    fn a_leftover_vmm_is_killed_and_its_directory_removed() {
        let run = tempfile::tempdir().unwrap();
        let enclave = run.path().join("i-0-enc1");
        fs::create_dir(&enclave).unwrap();
        fs::write(run.path().join("enclaved.log"), "kept").unwrap();
        fs::create_dir(run.path().join("backup-encrypted")).unwrap();
        let mut vmm = sleeper();
        note_process(&enclave, vmm.id()).unwrap();

        clear(run.path()).unwrap();

        assert!(!vmm.wait().unwrap().success());
        assert!(!enclave.exists());
        assert!(run.path().join("enclaved.log").exists());
        assert!(run.path().join("backup-encrypted").exists());
    }

    #[test]
    fn a_process_that_merely_has_the_same_number_is_spared() {
        let run = tempfile::tempdir().unwrap();
        let enclave = run.path().join("i-0-enc1");
        fs::create_dir(&enclave).unwrap();
        let mut other = sleeper();
        fs::write(enclave.join(IDENTITY_FILE), format!("{} 1\n", other.id())).unwrap();

        clear(run.path()).unwrap();

        assert!(other.try_wait().unwrap().is_none());
        assert!(!enclave.exists());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn an_enclave_lives_while_its_noted_process_does() {
        let run = tempfile::tempdir().unwrap();
        for name in ["i-0-enc2", "i-0-enc1", "i-0-enc3", "backup"] {
            fs::create_dir(run.path().join(name)).unwrap();
        }
        let mut vmm = sleeper();
        for name in ["i-0-enc1", "i-0-enc2", "backup"] {
            note_process(&run.path().join(name), vmm.id()).unwrap();
        }

        assert_eq!(living(run.path()).unwrap(), ["i-0-enc1", "i-0-enc2"]);

        vmm.kill().unwrap();
        vmm.wait().unwrap();
        assert!(living(run.path()).unwrap().is_empty());
        assert!(living(Path::new("/nonexistent")).unwrap().is_empty());
    }

    #[test]
    fn damaged_notes_are_ignored() {
        let run = tempfile::tempdir().unwrap();
        for (number, note) in ["", "0 0", "-1 5", "4294967295 1", "1"].iter().enumerate() {
            let enclave = run.path().join(format!("i-0-enc{number}"));
            fs::create_dir(&enclave).unwrap();
            fs::write(enclave.join(IDENTITY_FILE), note).unwrap();
        }

        clear(run.path()).unwrap();

        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }
}
