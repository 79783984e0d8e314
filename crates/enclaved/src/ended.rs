//! The enclaves that have ended lately, and why: what an operator asks for the morning after.
//!
//! The list is kept in a file of the run directory as well, one JSON object a line, so that it survives the daemon. It is
//! rewritten as a whole at each end, which is seldom. The consoles of the last few that were in debug mode are kept beside it,
//! as they were in the directories of their enclaves (see [`crate::console`]).

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use api::EndedEnclave;

use crate::console;
use crate::run_directory::EnclaveDirectory;

const FILE: &str = "ended.jsonl";
const UNFINISHED: &str = "ended.jsonl.new";

/// How many enclaves are remembered.
const MOST: usize = 100;

/// Where consoles are kept, each in a file with the enclave's id as its name.
const CONSOLES: &str = "consoles";

/// How many consoles are kept, of about a MiB each at most.
const MOST_CONSOLES: usize = 16;

/// The longest file that is read, in bytes: all lines of all consoles are far below.
const MAX_FILE: u64 = 8 << 20;

/// The list, oldest first.
#[derive(Debug, Default)]
pub struct EndedEnclaves {
    enclaves: VecDeque<EndedEnclave>,
    /// Where it is kept; nowhere if this is empty.
    directory: Option<PathBuf>,
}

impl EndedEnclaves {
    /// The list that an earlier daemon has kept in `run_directory`. What is no entry is left out.
    pub fn load(run_directory: &Path) -> Self {
        let mut text = String::new();
        // A file that is not there, or that cannot be read, is a list that is empty.
        let _ = File::open(run_directory.join(FILE))
            .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
        let entries = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut list = Self {
            enclaves: entries.collect(),
            directory: Some(run_directory.to_owned()),
        };
        list.forget_oldest();
        list
    }

    /// All of them.
    pub fn list(&self) -> Vec<EndedEnclave> {
        self.enclaves.iter().cloned().collect()
    }

    /// The last one for which `is_meant` holds.
    pub fn last(&self, is_meant: impl Fn(&EndedEnclave) -> bool) -> Option<EndedEnclave> {
        self.enclaves
            .iter()
            .rev()
            .find(|enclave| is_meant(enclave))
            .cloned()
    }

    /// Takes the console out of the `directory` of an enclave that is about to be added, and forgets those that are too many.
    pub fn keep_console(&self, id: &str, directory: &EnclaveDirectory) {
        let Some(kept) = self.directory.as_ref().map(|run| run.join(CONSOLES)) else {
            return;
        };
        let taken = fs::create_dir_all(&kept)
            .and_then(|()| fs::rename(console::history_in(directory.path()), kept.join(id)))
            .and_then(|()| self.forget_consoles(&kept, id));
        if let Err(error) = taken {
            tracing::warn!(%error, "the console of an ended enclave cannot be kept");
        }
    }

    /// The console of an ended enclave, if it is kept.
    pub fn kept_console(&self, id: &str) -> Option<KeptConsole> {
        let path = self.directory.as_ref()?.join(CONSOLES).join(id);
        path.is_file().then_some(KeptConsole(path))
    }

    /// Leaves the `newest` and those of the enclaves before it, as many as may be.
    fn forget_consoles(&self, kept: &Path, newest: &str) -> io::Result<()> {
        let earlier = self
            .enclaves
            .iter()
            .rev()
            .map(|enclave| enclave.run.enclave_id.as_str());
        let with_console = earlier.filter(|id| kept.join(id).exists());
        let stay: Vec<&str> = [newest]
            .into_iter()
            .chain(with_console)
            .take(MOST_CONSOLES)
            .collect();
        for entry in fs::read_dir(kept)? {
            let entry = entry?;
            if !entry
                .file_name()
                .to_str()
                .is_some_and(|name| stay.contains(&name))
            {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Adds one.
    pub fn add(&mut self, enclave: EndedEnclave) {
        self.enclaves.push_back(enclave);
        self.forget_oldest();
        if let Err(error) = self.save() {
            tracing::warn!(%error, "the list of ended enclaves cannot be written down");
        }
    }

    fn forget_oldest(&mut self) {
        while self.enclaves.len() > MOST {
            self.enclaves.pop_front();
        }
    }

    fn save(&self) -> io::Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let mut text = Vec::new();
        for enclave in &self.enclaves {
            serde_json::to_writer(&mut text, enclave)?;
            text.push(b'\n');
        }
        let unfinished = directory.join(UNFINISHED);
        fs::write(&unfinished, text)?;
        fs::rename(&unfinished, directory.join(FILE))
    }
}

/// The console of an ended enclave, in a file.
#[derive(Debug)]
pub struct KeptConsole(PathBuf);

impl KeptConsole {
    /// What is kept of it.
    ///
    /// # Errors
    /// If it cannot be read, maybe because it has just been forgotten.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        console::read_history(File::open(&self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{EnclaveFlags, EnclaveRunInfo};

    fn enclave(number: u32) -> EndedEnclave {
        EndedEnclave {
            run: EnclaveRunInfo {
                enclave_name: format!("name {number}"),
                enclave_id: format!("i-0-enc{number:x}"),
                process_id: number,
                enclave_cid: 16,
                number_of_cpus: 2,
                cpu_ids: vec![2, 3],
                memory_mib: 64,
            },
            flags: EnclaveFlags::DebugMode,
            reason: "it was terminated by request".into(),
            exit_code: Some(3),
            started_at: 1,
            ended_at: 2,
            console: vec!["last words".into()],
        }
    }

    #[test]
    fn the_newest_are_kept_and_survive_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let mut list = EndedEnclaves::load(directory.path());
        for number in 0..=150 {
            list.add(enclave(number));
        }

        let again = EndedEnclaves::load(directory.path()).list();

        assert_eq!(again.len(), MOST);
        assert_eq!(again.first(), Some(&enclave(51)));
        assert_eq!(again.last(), Some(&enclave(150)));
    }

    #[test]
    fn damaged_lines_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let line = serde_json::to_string(&enclave(1)).unwrap();
        fs::write(directory.path().join(FILE), format!("nonsense\n{line}\n{{}}\n")).unwrap();

        assert_eq!(EndedEnclaves::load(directory.path()).list(), [enclave(1)]);
    }
}
