//! Exclusive CPUs: while an enclave runs, nothing else of the parent runs on its CPUs.
//!
//! # How
//!
//! Each enclave has a control group, and in it one for the threads that run its vCPUs. The latter is an *isolated partition*
//! (`Documentation/admin-guide/cgroup-v2.rst`, "Cpuset"): its CPUs are taken out of every other group of the machine, and
//! the scheduler balances nothing onto them.
//!
//! ```text
//!   /sys/fs/cgroup/enclaved-…/         cpuset.cpus.exclusive: the whole pool, so that parts of it can be given on
//!     <enclave id>/                    the VMM process; its event loop runs on the parent's CPUs
//!       vcpus/                         threaded, cpuset.cpus.partition = isolated: the vCPU threads, which move here themselves
//! ```
//!
//! That a partition may lie below groups that are none (a *remote* partition) needs Linux 6.7. The groups lie at the top
//! rather than in the daemon's own, because they outlive it. Interrupts whose handlers may run on the enclave's CPUs are
//! moved to others, as far as the kernel lets them be moved.
//!
//! The same group limits what the VMM takes beside guest memory: threads, and memory, what the kernel has on its behalf included,
//! which limits of the process do not count.
//!
//! # Where this cannot be had
//!
//! Without cgroup v2, without its cpuset controller, in a container or on an older kernel enclaves run all the same, with
//! vCPUs pinned to CPUs that no other enclave gets, but that the parent's tasks may use. The log says so once. Limits of the VMM's
//! process hold all the same.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error_chain::chain_of;
use crate::ids::EnclaveId;
use crate::interrupts::{self, Moved};

/// Where control groups are.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Begins the name of a daemon's group; its run directory follows, since two daemons must not clear each other's groups.
const GROUP: &str = "enclaved";
const VCPUS: &str = "vcpus";

/// The file in an enclave's directory that lists the interrupts that were moved for it.
const MOVED_INTERRUPTS: &str = "interrupts";

/// Controllers that limit a VMM. Either may be missing.
const LIMITING: [&str; 2] = ["memory", "pids"];

/// Threads beside those of vCPUs: two of the VMM's, those that the kernel starts in it, and some to spare.
const OTHER_THREADS: usize = 16;

/// Bytes of memory that is not the guest's: more than the VMM's address space and full buffers of its sockets together.
const MOST_MEMORY: u64 = 4 << 30;

/// Where the options of the hierarchy are found.
const MOUNTS: &str = "/proc/self/mounts";

/// With this option hugepages count as memory of a group, too.
const HUGEPAGES_COUNT: &str = "memory_hugetlb_accounting";

/// How often removing a group is tried, and the pause in between: a process that has just ended may still be counted.
const REMOVAL_ATTEMPTS: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(5);

/// Why CPUs cannot be exclusive here.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// There is no unified hierarchy with a cpuset controller.
    #[error("{0} has no cpuset controller (is this cgroup v1, or a container?)")]
    NoController(PathBuf),
    /// Something in it could not be made or changed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has taken the partition for invalid; the text is its reason.
    #[error("the kernel does not isolate the CPUs: {0}")]
    Invalid(String),
}

/// Makes partitions, where the machine can.
#[derive(Debug)]
pub struct CpuPartitions {
    /// `enclaved` in the hierarchy; `None` where there can be no partitions.
    group: Option<PathBuf>,
}

impl CpuPartitions {
    /// None at all: vCPUs are pinned and no more.
    pub fn none() -> Self {
        Self { group: None }
    }

    /// Partitions of `pool`, in the hierarchy at `root`, usually [`CGROUP_ROOT`], for the daemon of this run directory. Says in
    /// the log if there can be none.
    pub fn open(root: &Path, run_directory: &Path, pool: &BTreeSet<u32>) -> Self {
        match prepare(root, run_directory, pool) {
            Ok(group) => Self { group: Some(group) },
            Err(error) => {
                let why = chain_of(&error);
                tracing::warn!(
                    why,
                    "enclaves do not get exclusive CPUs here: their vCPUs are pinned, but other tasks may share the CPUs"
                );
                Self::none()
            }
        }
    }

    /// Takes `cpus` away from the rest of the machine for the enclave `id`, whose directory is `directory`. `None` where
    /// there can be no partitions.
    ///
    /// # Errors
    /// [`PartitionError`]. Nothing stays then.
    pub fn isolate(
        &self,
        id: &EnclaveId,
        cpus: &[u32],
        directory: &Path,
    ) -> Result<Option<Partition>, PartitionError> {
        let Some(group) = &self.group else {
            return Ok(None);
        };
        let partition = Partition {
            group: group.join(id.to_string()),
            cpus: cpus.iter().copied().collect(),
            interrupts: Moved::default(),
            keep: false,
        };
        partition.create()?;
        Ok(Some(partition.with_interrupts_moved(directory)))
    }

    /// The partition of an enclave that an earlier daemon has started, if it has one.
    pub fn inherited(&self, id: &EnclaveId, cpus: &[u32], directory: &Path) -> Option<Partition> {
        let group = self.group.as_ref()?.join(id.to_string());
        let interrupts = fs::read(directory.join(MOVED_INTERRUPTS)).unwrap_or_default();
        group.is_dir().then(|| Partition {
            group,
            cpus: cpus.iter().copied().collect(),
            // Without the file no interrupt comes back, which is no loss.
            interrupts: serde_json::from_slice(&interrupts).unwrap_or_default(),
            keep: false,
        })
    }

    /// Removes the groups of all enclaves but these: what a daemon that was killed has left.
    pub fn clear_all_but(&self, living: &[EnclaveId]) {
        let Some(group) = &self.group else {
            return;
        };
        for entry in fs::read_dir(group).into_iter().flatten().flatten() {
            let id: Option<EnclaveId> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if id.is_some_and(|id| !living.contains(&id)) && !is_populated(&entry.path()) {
                remove(&entry.path());
            }
        }
    }
}

/// The group of all enclaves goes with the last daemon that has none left.
impl Drop for CpuPartitions {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // Refused as long as there are groups of enclaves in it, which then are the next daemon's.
            let _ = fs::remove_dir(group);
        }
    }
}

/// The CPUs of one enclave, taken away from the rest of the machine. Dropping it gives them back; its processes must have
/// ended.
#[derive(Debug)]
pub struct Partition {
    group: PathBuf,
    cpus: BTreeSet<u32>,
    interrupts: Moved,
    keep: bool,
}

impl Partition {
    /// A file into which the id of the enclave's process is written to put it into the enclave's group.
    ///
    /// # Errors
    /// [`PartitionError::Io`].
    pub fn process_list(&self) -> Result<OwnedFd, PartitionError> {
        open_list(&self.group.join("cgroup.procs"))
    }

    /// A file into which a thread of that process writes `0` to move itself onto the enclave's CPUs.
    ///
    /// # Errors
    /// [`PartitionError::Io`].
    pub fn thread_list(&self) -> Result<OwnedFd, PartitionError> {
        open_list(&self.group.join(VCPUS).join("cgroup.threads"))
    }

    /// Whether the kernel has killed the enclave's process for want of memory (`memory.events`, "`oom_kill`").
    pub fn was_killed_for_memory(&self) -> bool {
        let events = fs::read_to_string(self.group.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|kills| kills != "0")
    }

    /// Kills every process in the enclave's group, whoever has started it. Whether there was one.
    pub fn kill(&self) -> bool {
        if !is_populated(&self.group) {
            return false;
        }
        if let Err(error) = write(&self.group.join("cgroup.kill"), "1") {
            tracing::error!(
                error = chain_of(&error),
                "what is left of an enclave cannot be killed"
            );
        }
        true
    }

    /// Lets go of the partition without giving the CPUs back.
    pub fn leave(mut self) {
        self.keep = true;
    }

    /// In this order: a group can only become an isolated partition when it holds no task that could not follow.
    fn create(&self) -> Result<(), PartitionError> {
        let cpus = list(&self.cpus);
        let vcpus = self.group.join(VCPUS);
        make_directory(&self.group)?;
        make_directory(&vcpus)?;
        write(&vcpus.join("cgroup.type"), "threaded")?;
        write(&self.group.join("cgroup.subtree_control"), "+cpuset")?;
        write(&self.group.join("cpuset.cpus.exclusive"), &cpus)?;
        write(&vcpus.join("cpuset.cpus.exclusive"), &cpus)?;
        write(&vcpus.join("cpuset.cpus"), &cpus)?;
        let state = vcpus.join("cpuset.cpus.partition");
        write(&state, "isolated")?;
        let state = fs::read_to_string(&state).map_err(failed("read", &state))?;
        if state.trim() == "isolated" {
            self.limit();
            Ok(())
        } else {
            Err(PartitionError::Invalid(state.trim().to_owned()))
        }
    }

    /// Limits what is not the guest's. Limits of the process hold where this cannot be done.
    fn limit(&self) {
        let threads = self.cpus.len() + OTHER_THREADS;
        let mut limits = vec![("pids.max", threads.to_string())];
        let mounts = fs::read_to_string(MOUNTS).unwrap_or_default();
        if !mounts.contains(HUGEPAGES_COUNT) {
            limits.push(("memory.max", MOST_MEMORY.to_string()));
        }
        for (file, most) in limits {
            if let Err(error) = write(&self.group.join(file), &most) {
                tracing::debug!(error = chain_of(&error), "the group of a VMM has no such limit");
            }
        }
    }

    fn with_interrupts_moved(mut self, directory: &Path) -> Self {
        self.interrupts = interrupts::keep_off(Path::new(interrupts::PROC_IRQ), &self.cpus);
        // Only for the next daemon, which otherwise does not bring them back.
        let written = serde_json::to_vec(&self.interrupts)
            .map_err(io::Error::from)
            .and_then(|moved| fs::write(directory.join(MOVED_INTERRUPTS), moved));
        if let Err(error) = written {
            tracing::debug!(%error, "the moved interrupts cannot be written down");
        }
        self
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        remove(&self.group);
        interrupts::allow_again(Path::new(interrupts::PROC_IRQ), &self.interrupts, &self.cpus);
    }
}

/// Makes the group of all enclaves.
fn prepare(root: &Path, run_directory: &Path, pool: &BTreeSet<u32>) -> Result<PathBuf, PartitionError> {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if !controllers
        .split_ascii_whitespace()
        .any(|controller| controller == "cpuset")
    {
        return Err(PartitionError::NoController(root.to_owned()));
    }
    let group = group_of(root, run_directory);
    write(&root.join("cgroup.subtree_control"), "+cpuset")?;
    let is_new = !group.is_dir();
    if is_new {
        make_directory(&group)?;
    }
    for group in [root, &group] {
        for controller in LIMITING {
            let enabled = write(&group.join("cgroup.subtree_control"), &format!("+{controller}"));
            if let Err(error) = enabled {
                tracing::warn!(
                    error = chain_of(&error),
                    controller,
                    "control groups do not limit what a VMM takes of this; limits of its process do"
                );
            }
        }
    }
    let prepared = write(&group.join("cgroup.subtree_control"), "+cpuset")
        .and_then(|()| write(&group.join("cpuset.cpus.exclusive"), &list(pool)));
    if prepared.is_err() && is_new {
        // Nothing is in it yet.
        let _ = fs::remove_dir(&group);
    }
    prepared.map(|()| group)
}

fn group_of(root: &Path, run_directory: &Path) -> PathBuf {
    let place = run_directory.to_string_lossy().replace('/', "-");
    root.join(format!("{GROUP}{place}"))
}

/// Whether a group has processes; a group that is not there has none.
fn is_populated(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

fn make_directory(path: &Path) -> Result<(), PartitionError> {
    fs::create_dir(path).map_err(failed("create the control group", path))
}

/// Removes an enclave's group with the one for its vCPUs. What is not there is no error.
fn remove(group: &Path) {
    for directory in [group.join(VCPUS), group.to_owned()] {
        let mut attempts = 0;
        while let Err(error) = fs::remove_dir(&directory) {
            let busy = error.kind() == io::ErrorKind::ResourceBusy;
            if error.kind() == io::ErrorKind::NotFound {
                break;
            }
            attempts += 1;
            if !busy || attempts >= REMOVAL_ATTEMPTS {
                tracing::warn!(path = %directory.display(), %error, "cannot remove a control group; its CPUs stay taken");
                break;
            }
            std::thread::sleep(REMOVAL_PAUSE);
        }
    }
}

fn open_list(path: &Path) -> Result<OwnedFd, PartitionError> {
    let file = fs::File::options().write(true).open(path);
    file.map(OwnedFd::from).map_err(failed("open", path))
}

fn write(path: &Path, text: &str) -> Result<(), PartitionError> {
    fs::write(path, text).map_err(failed("write", path))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PartitionError {
    let path = path.to_owned();
    move |source| PartitionError::Io { action, path, source }
}

/// As the kernel reads it: `1,2,5`.
fn list(cpus: &BTreeSet<u32>) -> String {
    cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_cpuset_controller_still_runs_enclaves() {
        let root = tempfile::tempdir().unwrap();
        for controllers in [None, Some("memory pids\n")] {
            if let Some(controllers) = controllers {
                fs::write(root.path().join("cgroup.controllers"), controllers).unwrap();
            }
            let partitions = CpuPartitions::open(root.path(), Path::new("/run/enclaved"), &[2, 3].into());

            let id: EnclaveId = "i-0-enc1".parse().unwrap();
            let isolated = partitions.isolate(&id, &[2], root.path()).unwrap();

            assert!(isolated.is_none());
            assert!(partitions.inherited(&id, &[2], root.path()).is_none());
            partitions.clear_all_but(&[]);
        }
        assert!(!root.path().join("enclaved-run-enclaved").exists());
    }

    #[test]
    fn groups_of_enclaves_that_are_gone_are_removed_and_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let group = group_of(root.path(), Path::new("/run/enclaved"));
        for enclave in ["i-0-enc1", "i-0-enc2", "somebody-elses"] {
            fs::create_dir_all(group.join(enclave)).unwrap();
        }
        let partitions = CpuPartitions {
            group: Some(group.clone()),
        };

        partitions.clear_all_but(&["i-0-enc2".parse().unwrap()]);

        let left = |name: &str| group.join(name).exists();
        assert!(!left("i-0-enc1") && left("i-0-enc2") && left("somebody-elses"));
    }
}
