//! Which events the parent's kernel records, and where to read them.
//!
//! Recording takes time itself. So while starts are timed only three rare events are on, one of them only until it has
//! happened a few times, and system calls are recorded in other runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bench::at;

use crate::{error::Error, guest::MARK_PORT};

/// Where Linux mounts it.
const ROOT: &str = "/sys/kernel/tracing";

const EXEC: &str = "events/sched/sched_process_exec";
const FORK: &str = "events/sched/sched_process_fork";
const KVM_ENTRY: &str = "events/kvm/kvm_entry";
const KVM_CPUID: &str = "events/kvm/kvm_cpuid";
/// A trigger: what an event does besides being recorded.
const DISABLE_KVM_ENTRY: &str = "disable_event:kvm:kvm_entry";
const KVM_PIO: &str = "events/kvm/kvm_pio";

/// The kernel's event tracing, which this program has for itself.
#[derive(Debug)]
pub(crate) struct Tracefs {
    root: PathBuf,
}

impl Tracefs {
    /// The one of this machine.
    pub(crate) fn of_this_machine() -> Self {
        Self { root: ROOT.into() }
    }

    /// From now on: executions of `program`, the next entry into a guest, writes to [`MARK_PORT`].
    pub(crate) fn record_moments(&self, program: &Path) -> Result<(), Error> {
        self.clear()?;
        self.enable_exec(program)?;
        // A boot enters the guest thousands of times. Its first CPUID, a few instructions after the first entry, switches
        // the event off.
        self.write(&format!("{KVM_CPUID}/trigger"), DISABLE_KVM_ENTRY)?;
        self.write(&format!("{KVM_ENTRY}/enable"), "1")?;
        self.write(
            &format!("{KVM_PIO}/filter"),
            &format!("rw == 1 && port == {MARK_PORT}"),
        )?;
        self.write(&format!("{KVM_PIO}/enable"), "1")?;
        self.write("tracing_on", "1")
    }

    /// From now on: executions of `program`, system calls of every process as they begin and end, and threads as they are made.
    pub(crate) fn record_system_calls(&self, program: &Path) -> Result<(), Error> {
        self.clear()?;
        // Reading the records takes system calls too, which would be recorded, to be read, and so on.
        self.write("set_event_notrace_pid", &std::process::id().to_string())?;
        self.write("set_event", "syscalls:")?;
        self.enable_exec(program)?;
        self.write(&format!("{FORK}/enable"), "1")?;
        self.write("tracing_on", "1")
    }

    /// What has been recorded.
    pub(crate) fn records(&self) -> Result<String, Error> {
        let path = self.root.join("trace");
        Ok(fs::read_to_string(&path).map_err(at("read", &path))?)
    }

    /// Records nothing any more.
    pub(crate) fn stop(&self) -> Result<(), Error> {
        self.write("tracing_on", "0")?;
        // Truncating this file switches off every event.
        self.write("set_event", "")
    }

    /// Nothing is recorded, and nothing has been.
    fn clear(&self) -> Result<(), Error> {
        self.stop()?;
        self.write(&format!("{KVM_CPUID}/trigger"), &format!("!{DISABLE_KVM_ENTRY}"))?;
        // The clock of all processors, in nanoseconds; it follows virtual time.
        self.write("trace_clock", "mono")?;
        self.write("trace", "")
    }

    fn enable_exec(&self, program: &Path) -> Result<(), Error> {
        let filter = format!("filename == \"{}\"", program.display());
        self.write(&format!("{EXEC}/filter"), &filter)?;
        self.write(&format!("{EXEC}/enable"), "1")
    }

    fn write(&self, file: &str, text: &str) -> Result<(), Error> {
        let path = self.root.join(file);
        Ok(fs::write(&path, text).map_err(at("write", &path))?)
    }
}
