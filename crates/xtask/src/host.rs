//! Whether this host itself can run the example enclave, of two CPUs and 512 MiB.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use crate::error::Error;
use crate::programs::Programs;

/// CPUs of the example enclave.
const CPUS: usize = 2;

/// Where the kernel describes CPUs.
const CPU_SYSFS: &str = "/sys/devices/system/cpu";

/// What this host is good for, as far as that can be told without changing it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Its KVM runs guests, and there are CPUs for them.
    Fit,
    /// Something is missing.
    Unfit {
        /// What, in words.
        reason: String,
    },
}

/// Looks at KVM, CPUs and this user's rights.
pub(crate) fn judge(programs: &Programs) -> Result<Host, Error> {
    if let Some(reason) = probe_kvm(programs)? {
        return Ok(Host::Unfit { reason });
    }
    let cpus = cpus_for_enclaves(Path::new(CPU_SYSFS));
    Ok(if cpus < CPUS {
        let reason = format!("an enclave needs {CPUS} CPUs outside of CPU 0's core, and {cpus} are there");
        Host::Unfit { reason }
    } else if is_root() {
        Host::Fit
    } else {
        let reason = "reserving hugepages and running the daemon need root".to_owned();
        Host::Unfit { reason }
    })
}

/// Lets the VMM find out whether KVM works: it creates a virtual machine and runs a few instructions in it. Returns why
/// not: it may be absent, or there but unable to run a guest, as in some clouds.
fn probe_kvm(programs: &Programs) -> Result<Option<String>, Error> {
    let mut probe = Command::new(&programs.enclave_vmm);
    let output = probe.arg("probe").output().map_err(|source| {
        let program = programs.enclave_vmm.display().to_string();
        Error::Spawn { program, source }
    })?;
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok((!output.status.success()).then_some(reason))
}

/// The CPUs that the daemon may give away: those that are online and no hardware threads of CPU 0's core.
fn cpus_for_enclaves(sysfs: &Path) -> usize {
    let list = |name: &str| {
        let text = fs::read_to_string(sysfs.join(name)).unwrap_or_default();
        cpu_list(text.trim()).unwrap_or_default()
    };
    let mut kept = list("cpu0/topology/thread_siblings_list");
    kept.insert(0);
    list("online").difference(&kept).count()
}

/// Reads `0,2-5`.
fn cpu_list(text: &str) -> Option<BTreeSet<u16>> {
    let mut cpus = BTreeSet::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

/// Whether this user may install packages, reserve hugepages and so on.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // The owner of /proc/self is the effective user of this process.
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Whether `/dev/kvm` is there and may be used. It may still be one that cannot boot Linux; see [`judge`].
pub(crate) fn kvm_opens() -> io::Result<()> {
    let mut options = File::options();
    options.read(true).write(true).open("/dev/kvm").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(online: &str, core_of_cpu_0: Option<&str>) -> usize {
        let directory = tempfile::tempdir().expect("directory");
        let topology = directory.path().join("cpu0/topology");
        fs::create_dir_all(&topology).expect("create");
        fs::write(directory.path().join("online"), online).expect("write");
        if let Some(siblings) = core_of_cpu_0 {
            fs::write(topology.join("thread_siblings_list"), siblings).expect("write");
        }
        cpus_for_enclaves(directory.path())
    }

    #[test]
    fn the_core_of_cpu_0_is_not_for_enclaves() {
        assert_eq!(machine("0-3\n", Some("0\n")), 3);
        assert_eq!(machine("0-3\n", Some("0-1\n")), 2);
        assert_eq!(machine("0-3\n", Some("0,2\n")), 2);
        assert_eq!(machine("0-1,4\n", Some("0-1\n")), 1);
        assert_eq!(machine("0\n", Some("0\n")), 0);
    }

    #[test]
    fn a_kernel_that_does_not_say_has_no_cpus_or_no_threads() {
        assert_eq!(machine("0-1\n", None), 1);
        assert_eq!(machine("all of them\n", Some("0\n")), 0);
    }
}
