//! What a parent instance is made of: plain data, and the rules it must obey.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, systemd};

/// Bytes in the smaller hugepage of x86-64.
pub const HUGEPAGE_2M: u64 = 2 << 20;
/// Bytes in the larger hugepage of x86-64.
pub const HUGEPAGE_1G: u64 = 1 << 30;

/// What the kernel, the initramfs and the programs inside need beside hugepages, in bytes.
const SMALL_PAGES_MIN: u64 = 192 << 20;

/// A file of the host that the machine has too, with the host file's permissions and owned by root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFile {
    /// Where it is on the host.
    pub host: PathBuf,
    /// Absolute path inside the machine. Directories above it are made.
    pub guest: String,
}

/// Description of a parent instance. [`Config::new`] is a small machine; change the fields that matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The parent kernel (`images/kernel`, kind `parent`), a bzImage.
    pub kernel: PathBuf,
    /// A static busybox, the machine's user space.
    pub busybox: PathBuf,
    /// Logical CPUs, a multiple of `threads * nodes`.
    pub cpus: u32,
    /// Hardware threads of each core: 1 or 2.
    pub threads: u32,
    /// NUMA nodes, one socket each. CPUs, memory and hugepages are spread over them evenly.
    pub nodes: u32,
    /// Memory in bytes, a multiple of `nodes` MiB.
    pub memory: u64,
    /// Hugepages of 2 MiB in all, a multiple of `nodes`.
    pub hugepages_2m: u64,
    /// Hugepages of 1 GiB in all, a multiple of `nodes`.
    pub hugepages_1g: u64,
    /// A directory of the host that the machine has at `/share`, read-write.
    pub share: Option<PathBuf>,
    /// Debian packages the machine has, with all they depend on. Their maintainer scripts do not run.
    pub packages: Vec<String>,
    /// Where downloaded packages are kept between runs.
    pub cache: PathBuf,
    /// Files the machine has. With `daemon`, one of them must be `/usr/bin/enclaved`.
    pub files: Vec<GuestFile>,
    /// Whether the daemon is started, and its socket waited for, before the command.
    pub daemon: bool,
    /// Whether systemd is process 1, with Debian's packages, dpkg, and no group `ne`: a host that something is installed
    /// on. The command runs once it has booted. Not together with `daemon`.
    pub systemd: bool,
    /// Whether virtual time counts instructions (`-icount`, one TCG thread): slower, but times measured inside repeat
    /// to a few percent whatever else the host does.
    pub icount: bool,
    /// How long a command may run, from the start of QEMU. Interactive sessions have no limit.
    pub time_limit: Duration,
}

impl Config {
    /// One node, two CPUs, 1 GiB of memory without hugepages, no daemon, ten minutes.
    pub fn new(kernel: PathBuf, busybox: PathBuf, cache: PathBuf) -> Self {
        Self {
            kernel,
            busybox,
            cpus: 2,
            threads: 1,
            nodes: 1,
            memory: 1 << 30,
            hugepages_2m: 0,
            hugepages_1g: 0,
            share: None,
            packages: Vec::new(),
            cache,
            files: Vec::new(),
            daemon: false,
            systemd: false,
            icount: false,
            time_limit: Duration::from_mins(10),
        }
    }

    /// Debian packages that were asked for, and those that other fields bring.
    pub(crate) fn all_packages(&self) -> Vec<String> {
        let systemd = if self.systemd { &systemd::PACKAGES[..] } else { &[] };
        let systemd = systemd.iter().copied().map(String::from);
        self.packages.iter().cloned().chain(systemd).collect()
    }

    /// Checks the rules that the fields state.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::Config(reason));
        if !matches!(self.threads, 1 | 2) {
            return refuse(format!("{} threads per core; 1 or 2 are possible", self.threads));
        }
        if self.nodes == 0 || self.cpus == 0 {
            return refuse("at least one CPU and one node are needed".into());
        }
        if !self.cpus.is_multiple_of(self.threads * self.nodes) {
            return refuse(format!(
                "{} CPUs do not divide into {} nodes of cores with {} threads",
                self.cpus, self.nodes, self.threads
            ));
        }
        let nodes = u64::from(self.nodes);
        if !self.memory.is_multiple_of(nodes << 20) {
            return refuse(format!(
                "{} bytes of memory are no multiple of {nodes} MiB",
                self.memory
            ));
        }
        for (pages, size) in [(self.hugepages_2m, "2 MiB"), (self.hugepages_1g, "1 GiB")] {
            if !pages.is_multiple_of(nodes) {
                return refuse(format!(
                    "{pages} hugepages of {size} do not divide into {nodes} nodes"
                ));
            }
        }
        let huge = (self.hugepages_2m.saturating_mul(HUGEPAGE_2M))
            .saturating_add(self.hugepages_1g.saturating_mul(HUGEPAGE_1G));
        if self.memory.saturating_sub(huge) < SMALL_PAGES_MIN {
            return refuse(format!(
                "{} MiB of memory leave less than {} MiB beside {} MiB of hugepages",
                self.memory >> 20,
                SMALL_PAGES_MIN >> 20,
                huge >> 20
            ));
        }
        if let Some(share) = self.share.as_ref().filter(|share| !share.is_dir()) {
            return refuse(format!(
                "the shared directory {} is no directory",
                share.display()
            ));
        }
        if self.daemon && self.systemd {
            return refuse("where systemd runs, it starts the daemon".into());
        }
        if self.daemon && !self.files.iter().any(|file| file.guest == "/usr/bin/enclaved") {
            return refuse("the daemon is asked for, but no file is /usr/bin/enclaved".into());
        }
        match self.files.iter().find(|file| !file.guest.starts_with('/')) {
            Some(file) => refuse(format!(
                "the path {} inside the machine is not absolute",
                file.guest
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("bzImage".into(), "busybox".into(), "cache".into())
    }

    fn refusal(change: impl FnOnce(&mut Config)) -> String {
        let mut config = config();
        change(&mut config);
        config
            .validate()
            .expect_err("the configuration breaks a rule")
            .to_string()
    }

    #[test]
    fn the_machine_of_the_numa_tests_is_accepted() {
        let numa = Config {
            cpus: 8,
            threads: 2,
            nodes: 2,
            memory: 5 << 30,
            hugepages_2m: 512,
            hugepages_1g: 2,
            ..config()
        };
        numa.validate().expect("valid");
    }

    #[test]
    fn what_does_not_divide_into_nodes_is_refused() {
        assert!(refusal(|c| (c.cpus, c.threads, c.nodes) = (6, 2, 2)).contains("do not divide into 2 nodes"));
        assert!(refusal(|c| (c.nodes, c.hugepages_2m) = (2, 3)).contains("3 hugepages of 2 MiB"));
        assert!(refusal(|c| (c.nodes, c.memory) = (2, (1 << 30) + (1 << 20))).contains("multiple of 2 MiB"));
    }

    #[test]
    fn impossible_processors_are_refused() {
        assert!(refusal(|c| c.threads = 3).contains("3 threads per core"));
        assert!(refusal(|c| c.cpus = 0).contains("at least one CPU"));
        assert!(refusal(|c| c.nodes = 0).contains("at least one CPU"));
    }

    #[test]
    fn hugepages_must_leave_memory_for_programs() {
        assert!(refusal(|c| c.hugepages_2m = 500).contains("beside 1000 MiB"));
        assert!(refusal(|c| c.hugepages_1g = u64::MAX).contains("of hugepages"));
    }

    #[test]
    fn a_daemon_needs_its_program_and_files_need_absolute_paths() {
        assert!(refusal(|c| c.daemon = true).contains("/usr/bin/enclaved"));
        let file = GuestFile {
            host: "hello.eif".into(),
            guest: "hello.eif".into(),
        };
        assert!(refusal(|c| c.files.push(file)).contains("not absolute"));
    }

    #[test]
    fn systemd_brings_its_packages_and_starts_the_daemon_itself() {
        assert!(
            refusal(|c| (c.systemd, c.daemon) = (true, true)).contains("systemd runs, it starts the daemon")
        );
        let socat = Config {
            packages: vec!["socat".into()],
            ..config()
        };
        assert_eq!(socat.all_packages(), ["socat"]);
        let packages = Config {
            systemd: true,
            ..socat
        }
        .all_packages();
        assert_eq!(packages[..2], ["socat", "systemd"]);
    }

    #[test]
    fn a_missing_share_is_refused() {
        assert!(refusal(|c| c.share = Some("/no/such/directory".into())).contains("/no/such/directory"));
    }
}
