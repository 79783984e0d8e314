//! Whether a test leaves the machine as it found it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::command::processes_named;
use crate::{parent, poll};

/// How long what a command has ended may take to be gone: closing descriptors and reaping go on after the reply.
const SETTLING: Duration = Duration::from_secs(30);

/// The log of the parent's own daemon.
const DAEMON_LOG: &str = "/var/log/enclaved.log";

/// Lines of it that are shown when a test fails.
const LOG_TAIL: usize = 60;

/// One test at a time: each counts what the whole machine has.
static ALONE: Mutex<()> = Mutex::new(());

/// The machine during one test. When it is dropped, processes, hugepages, run-time files, sockets, control groups, mounts,
/// CPUs and the daemon's descriptors must be what they were. Bind it to a name before anything else, so that it is
/// dropped last.
#[derive(Debug)]
#[must_use]
pub struct World {
    before: Snapshot,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// Waits for its turn and looks at the machine.
    ///
    /// # Panics
    /// Outside a parent instance.
    pub fn enter() -> Self {
        parent::require();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            before: Snapshot::take(),
            _alone: alone,
        }
    }

    /// Fails unless everything is as it was when the test began; for the middle of a test.
    ///
    /// # Panics
    /// With each difference.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let differences = self.remaining_differences();
        assert!(
            differences.is_empty(),
            "something stayed behind:\n{}",
            differences.join("\n")
        );
    }

    /// What the machine has now, with the files of a daemon's run directory, to be compared with in the middle of a test.
    pub fn checkpoint(&self, run_directory: &Path) -> Checkpoint {
        Checkpoint {
            run_directory: run_directory.to_owned(),
            then: Checkpoint::take(run_directory),
        }
    }

    fn remaining_differences(&self) -> Vec<String> {
        settled(|| self.before.differences(&Snapshot::take()))
    }
}

/// The machine at one moment of a test.
#[derive(Debug)]
pub struct Checkpoint {
    run_directory: PathBuf,
    then: Snapshot,
}

impl Checkpoint {
    /// Daemons may have come and gone since, and what each has open is not the same.
    const MAY_CHANGE: [&str; 2] = ["processes enclaved", "descriptors of the daemon"];

    /// Fails unless everything else is as it was.
    ///
    /// # Panics
    /// With each difference.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let differences = settled(|| self.then.differences(&Self::take(&self.run_directory)));
        assert!(
            differences.is_empty(),
            "something has changed:\n{}",
            differences.join("\n")
        );
    }

    fn take(run_directory: &Path) -> Snapshot {
        let mut snapshot = Snapshot::take();
        snapshot.add_files(run_directory, false);
        snapshot
            .0
            .retain(|what, _| !Self::MAY_CHANGE.contains(&what.as_str()));
        snapshot
    }
}

/// The differences that stay.
fn settled(mut look: impl FnMut() -> Vec<String>) -> Vec<String> {
    let mut differences = Vec::new();
    poll::within(SETTLING, || {
        differences = look();
        differences.is_empty().then_some(())
    });
    differences
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            // The failure is told already; what the daemon saw may explain it. The next test should still find a quiet
            // machine.
            eprintln!(
                "end of the daemon's log:\n{}",
                tail(&read(Path::new(DAEMON_LOG)), LOG_TAIL)
            );
            self.remaining_differences();
        } else {
            self.assert_unchanged();
        }
    }
}

/// What can be left behind, by what it is.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot(BTreeMap<String, String>);

impl Snapshot {
    fn take() -> Self {
        let mut all = BTreeMap::new();
        for name in ["enclave-vmm", "enclaved", "nitro-cli"] {
            let mut processes = processes_named(name);
            processes.sort_unstable();
            all.insert(format!("processes {name}"), format!("{processes:?}"));
        }
        for counter in hugepage_counters() {
            all.insert(counter.display().to_string(), read(&counter));
        }
        all.insert("named sockets".into(), named_sockets());
        all.insert(
            "CPUs online".into(),
            read(Path::new("/sys/devices/system/cpu/online")),
        );
        all.insert("mounts".into(), read(Path::new("/proc/mounts")));
        all.insert("descriptors of the daemon".into(), daemon_descriptors());
        let mut snapshot = Self(all);
        snapshot.add_files(Path::new("/run"), false);
        snapshot.add_files(Path::new("/sys/fs/cgroup"), true);
        snapshot
    }

    fn add_files(&mut self, root: &Path, directories_only: bool) {
        let mut paths = Vec::new();
        list(root, directories_only, &mut paths);
        self.0
            .insert(format!("files of {}", root.display()), paths.join("\n"));
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let pairs = self
            .0
            .iter()
            .map(|(what, before)| (what, before, now.0.get(what)));
        pairs
            .filter(|(_, before, now)| *now != Some(*before))
            .map(|(what, before, now)| {
                format!(
                    "{what}\n  before: {before}\n  now:    {}",
                    now.map_or("none", String::as_str)
                )
            })
            .collect()
    }
}

/// The pools of both page sizes: how many there are, are free, are promised.
fn hugepage_counters() -> Vec<PathBuf> {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").expect("a kernel with hugepages");
    let counters = [
        "nr_hugepages",
        "free_hugepages",
        "resv_hugepages",
        "surplus_hugepages",
    ];
    sizes
        .flatten()
        .flat_map(|size| counters.map(|counter| size.path().join(counter)))
        .collect()
}

/// What a daemon keeps on purpose: the list of ended enclaves, the consoles of the last of them, and the lock of the pool.
const KEPT: [&str; 3] = ["consoles", "ended.jsonl", "pool.lock"];

/// Everything below a directory but [`KEPT`], sorted, without following links.
fn list(directory: &Path, directories_only: bool, paths: &mut Vec<String>) {
    // A directory may vanish while it is listed.
    let mut entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if KEPT.iter().any(|kept| entry.file_name() == *kept) {
            continue;
        }
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory || !directories_only {
            paths.push(entry.path().display().to_string());
        }
        if is_directory {
            list(&entry.path(), directories_only, paths);
        }
    }
}

/// Unix sockets that have a name in a file system, each as often as it has connections.
fn named_sockets() -> String {
    let table = read(Path::new("/proc/net/unix"));
    let mut paths: Vec<_> = table
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(7))
        .filter(|path| path.starts_with('/'))
        .collect();
    paths.sort_unstable();
    paths.join("\n")
}

/// How many descriptors the parent's own daemon has open.
fn daemon_descriptors() -> String {
    let process_id = read(Path::new("/run/enclaved/enclaved.lock"));
    let open = fs::read_dir(Path::new("/proc").join(&process_id).join("fd"));
    open.map_or_else(|error| error.to_string(), |entries| entries.count().to_string())
}

/// The last `lines` lines of `text`.
fn tail(text: &str, lines: usize) -> &str {
    let start = text.rmatch_indices('\n').nth(lines).map_or(0, |(at, _)| at + 1);
    text.get(start..).unwrap_or(text)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}
