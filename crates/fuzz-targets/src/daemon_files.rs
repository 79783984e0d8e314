//! What the daemon writes down and the next one reads. The first byte of an input says which file the rest is.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use enclaved::allocator::pool::{POOL_FILE, Pool};
use enclaved::ended::EndedEnclaves;
use enclaved::note::Note;
use nsm::{PcrBank, Snapshot};
use tempfile::TempDir;

/// Enclaves that have ended and are remembered.
const MOST_ENDED: usize = 100;

/// Whatever is accepted means the same when it is written and read again.
pub(crate) fn check(input: &[u8]) {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| tempfile::tempdir().expect("a directory"));
    let directory = directory.path();
    match input.split_first() {
        Some((0, text)) => note(directory, text),
        Some((1, text)) => pool(directory, text),
        Some((2, text)) => ended(directory, text),
        Some((_, text)) => registers(text),
        None => {}
    }
}

fn note(directory: &Path, text: &[u8]) {
    fs::write(directory.join("enclave.json"), text).expect("a file");
    if let Ok(note) = Note::read(directory) {
        note.write(directory).expect("a file");
        assert_eq!(Note::read(directory).expect("it was written here"), note);
    }
}

fn pool(directory: &Path, text: &[u8]) {
    fs::write(directory.join(POOL_FILE), text).expect("a file");
    if let Ok(pool) = Pool::read(directory) {
        let pool = pool.expect("there is a file");
        for entry in &pool.entries {
            assert!(!entry.to_string().is_empty());
        }
        let text = serde_json::to_vec(&pool).expect("it was read");
        fs::write(directory.join(POOL_FILE), text).expect("a file");
        assert_eq!(Pool::read(directory).expect("it was written here"), Some(pool));
    }
}

fn ended(directory: &Path, text: &[u8]) {
    fs::write(directory.join("ended.jsonl"), text).expect("a file");
    let list = EndedEnclaves::load(directory).list();
    assert!(list.len() <= MOST_ENDED, "{} enclaves", list.len());
    let lines: Vec<String> = list
        .iter()
        .map(|enclave| serde_json::to_string(enclave).expect("it was read"))
        .collect();
    fs::write(directory.join("ended.jsonl"), lines.join("\n")).expect("a file");
    assert_eq!(EndedEnclaves::load(directory).list(), list);
}

/// The registers of a security module.
fn registers(text: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(text) else {
        return;
    };
    if let Ok(bank) = PcrBank::try_from(&snapshot) {
        assert_eq!(Snapshot::from(&bank), snapshot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds that no parser takes any more would be of no use.
    #[test]
    fn every_kind_of_file_is_in_the_corpus() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let mut accepted = [0; 4];
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/daemon-files");
        for entry in fs::read_dir(corpus).expect("a corpus") {
            let input = fs::read(entry.expect("an entry").path()).expect("an input");
            let Some((kind, text)) = input.split_first() else {
                continue;
            };
            for file in ["enclave.json", POOL_FILE, "ended.jsonl"] {
                fs::write(directory.join(file), text).expect("a file");
            }
            let taken = match kind {
                0 => Note::read(directory).is_ok(),
                1 => Pool::read(directory).is_ok(),
                2 => !EndedEnclaves::load(directory).list().is_empty(),
                _ => serde_json::from_slice(text)
                    .is_ok_and(|snapshot: Snapshot| PcrBank::try_from(&snapshot).is_ok()),
            };
            accepted[usize::from(*kind).min(3)] += u32::from(taken);
        }
        assert!(!accepted.contains(&0), "{accepted:?}");
    }
}
