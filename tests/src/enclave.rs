//! Enclaves, started and ended with nitro-cli.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Holdings;
use crate::command::{self, Finished, Running};

/// A daemon, as its clients see it.
#[derive(Debug, Clone)]
pub struct Host {
    run_directory: PathBuf,
}

impl Host {
    /// The daemon that runs in every parent instance, where nitro-cli finds it by default.
    pub fn of_the_parent() -> Self {
        Self::at("/run/enclaved")
    }

    /// The daemon of this run directory.
    pub fn at(run_directory: impl Into<PathBuf>) -> Self {
        Self {
            run_directory: run_directory.into(),
        }
    }

    /// Where the daemon keeps its sockets.
    pub fn run_directory(&self) -> &Path {
        &self.run_directory
    }

    /// Its client socket.
    pub fn socket(&self) -> PathBuf {
        self.run_directory.join("enclaved.sock")
    }

    /// nitro-cli with these arguments, for this daemon.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("nitro-cli");
        command.args(arguments);
        if self.run_directory != Path::new("/run/enclaved") {
            command.env("ENCLAVED_SOCKET", self.socket());
        }
        command
    }

    /// Runs nitro-cli to its end.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Finished {
        command::run(&mut self.command(arguments))
    }

    /// Starts nitro-cli.
    #[must_use]
    pub fn start_cli(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// What describe-enclaves lists.
    ///
    /// # Panics
    /// If the command fails or prints no array.
    pub fn describe(&self) -> Vec<Value> {
        let finished = self.cli(&["describe-enclaves"]).succeeded();
        let Value::Array(enclaves) = finished.json() else {
            panic!("not an array: {finished:#?}");
        };
        enclaves
    }
}

impl Host {
    /// Whether no enclave holds a CPU, be it one that still boots or one that is being ended.
    ///
    /// # Panics
    /// If describe-pools fails or prints no cores.
    pub fn all_cpus_are_free(&self) -> bool {
        let pools = self.cli(&["describe-pools"]).succeeded().json();
        let cores = pools["Cores"].as_array().expect("cores");
        cores.iter().all(|core| core["EnclaveID"].is_null())
    }
}

/// A call of run-enclave: 256 MiB and two CPUs unless changed.
#[derive(Debug, Clone)]
pub struct Launch {
    eif: PathBuf,
    memory: String,
    cpus: Vec<String>,
    others: Vec<String>,
}

impl Launch {
    /// Of this image.
    pub fn of(eif: impl Into<PathBuf>) -> Self {
        Self {
            eif: eif.into(),
            memory: "256".into(),
            cpus: ["--cpu-count", "2"].map(String::from).to_vec(),
            others: Vec::new(),
        }
    }

    /// `--memory`, in MiB.
    #[must_use]
    pub fn with_memory(self, mib: u64) -> Self {
        self.with_memory_option(&mib.to_string())
    }

    /// `--memory`, any text.
    #[must_use]
    pub fn with_memory_option(self, text: &str) -> Self {
        Self {
            memory: text.to_owned(),
            ..self
        }
    }

    /// `--cpu-count`.
    #[must_use]
    pub fn with_cpu_count(self, count: u32) -> Self {
        self.with_cpu_options(&["--cpu-count", &count.to_string()])
    }

    /// `--cpu-ids`.
    #[must_use]
    pub fn with_cpu_ids(self, ids: &[&str]) -> Self {
        self.with_cpu_options(&[&["--cpu-ids"], ids].concat())
    }

    /// Whatever says which CPUs.
    #[must_use]
    pub fn with_cpu_options(self, options: &[&str]) -> Self {
        Self {
            cpus: options.iter().copied().map(String::from).collect(),
            ..self
        }
    }

    /// `--debug-mode`.
    #[must_use]
    pub fn in_debug_mode(self) -> Self {
        self.with(&["--debug-mode"])
    }

    /// `--enclave-name`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        self.with(&["--enclave-name", name])
    }

    /// More options.
    #[must_use]
    pub fn with(mut self, options: &[&str]) -> Self {
        self.others.extend(options.iter().copied().map(String::from));
        self
    }

    /// The command, for `host`.
    pub fn command(&self, host: &Host) -> Command {
        let mut command = host.command(&["run-enclave"]);
        command.args([OsStr::new("--eif-path"), self.eif.as_os_str()]);
        command.args(["--memory", &self.memory]);
        command.args(&self.others).args(&self.cpus);
        command
    }

    /// Runs the command to its end, whatever that is.
    #[must_use]
    pub fn attempt(&self, host: &Host) -> Finished {
        command::run(&mut self.command(host))
    }

    /// Starts the command.
    #[must_use]
    pub fn start(&self, host: &Host) -> Running {
        Running::start(&mut self.command(host))
    }

    /// The enclave, booted.
    ///
    /// # Panics
    /// If the command fails.
    #[track_caller]
    pub fn run(&self, host: &Host) -> Enclave {
        Enclave::started_by(self.attempt(host).succeeded(), host)
    }
}

/// A running enclave. Dropping it terminates it.
#[derive(Debug)]
pub struct Enclave {
    host: Host,
    /// What run-enclave printed.
    pub started: Finished,
    /// The JSON of that.
    pub info: Value,
    /// `EnclaveID`.
    pub id: String,
}

impl Enclave {
    /// The enclave that a successful run-enclave has started.
    ///
    /// # Panics
    /// If the command's output names none.
    pub fn started_by(started: Finished, host: &Host) -> Self {
        let info = started.json();
        let id = info["EnclaveID"].as_str().expect("an EnclaveID").to_owned();
        Self {
            host: host.clone(),
            started,
            info,
            id,
        }
    }

    /// `EnclaveName`.
    pub fn name(&self) -> &str {
        self.info["EnclaveName"].as_str().unwrap_or_default()
    }

    /// `EnclaveCID`.
    ///
    /// # Panics
    /// If run-enclave has printed none.
    pub fn cid(&self) -> u32 {
        let cid = self.info["EnclaveCID"].as_u64().expect("an EnclaveCID");
        u32::try_from(cid).expect("a CID has 32 bits")
    }

    /// `ProcessID`.
    ///
    /// # Panics
    /// If it is none.
    pub fn process_id(&self) -> u32 {
        let id = self.info["ProcessID"].as_u64().expect("a ProcessID");
        u32::try_from(id).expect("a process id")
    }

    /// What describe-enclaves says of it; `None` if it is not listed.
    pub fn description(&self) -> Option<Value> {
        let mut listed = self.host.describe().into_iter();
        listed.find(|enclave| enclave["EnclaveID"] == self.id.as_str())
    }

    /// nitro-cli that watches its console.
    #[must_use]
    pub fn console(&self) -> Running {
        self.host.start_cli(&["console", "--enclave-id", &self.id])
    }

    /// Its part of the daemon's run directory, where its vsock sockets are.
    pub fn directory(&self) -> PathBuf {
        self.host.run_directory().join(&self.id)
    }

    /// Ends it as a user does.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn terminate(self) -> Finished {
        self.try_terminate().succeeded()
    }

    /// Returns once describe-enclaves does not list it any more, because it has ended by itself.
    pub fn wait_until_gone(&self) {
        crate::poll::until("the enclave's end", || self.description().is_none().then_some(()));
    }

    /// What its VMM holds.
    ///
    /// # Panics
    /// If it is gone.
    pub fn holdings(&self) -> Holdings {
        Holdings::of(self.process_id()).expect("the VMM runs")
    }

    /// How many pages of its memory lie on each NUMA node (`numa_maps` in `proc_pid_numa_maps(5)`): `N0` and so on.
    ///
    /// # Panics
    /// If its VMM is gone.
    pub fn guest_pages_by_node(&self) -> BTreeMap<String, u64> {
        let maps = fs::read_to_string(format!("/proc/{}/numa_maps", self.process_id())).expect("numa_maps");
        let mut pages = BTreeMap::new();
        for line in maps.lines().filter(|line| line.contains("enclave-memory")) {
            for field in line.split(' ') {
                if let Some((node, count)) = field.split_once('=').filter(|(node, _)| node.starts_with('N')) {
                    *pages.entry(node.to_owned()).or_insert(0) += count.parse::<u64>().expect("a count");
                }
            }
        }
        pages
    }

    fn try_terminate(&self) -> Finished {
        self.host.cli(&["terminate-enclave", "--enclave-id", &self.id])
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        if self.directory().exists() {
            // It may end by itself meanwhile.
            let _ = self.try_terminate();
        }
    }
}
