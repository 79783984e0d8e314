//! What can be seen of the machine without the daemon. `root` is `/`, except in tests.

use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::log::{self, Directory};

use super::{Finding, Status};

/// The group whose members may use the daemon.
const GROUP: &str = "ne";

/// The VMM, which has the test of KVM.
const VMM: &str = "enclave-vmm";

/// How long that test may take; it takes milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// Exclusive CPUs need this kernel.
const KERNEL_WITH_REMOTE_PARTITIONS: (u32, u32) = (6, 7);

/// 2026-01-01T00:00:00Z in seconds since 1970. The daemon makes no root of attestation before.
const EARLIEST: u64 = 1_767_225_600;

/// Whether KVM really runs guests: a test guest says so, not the mere device.
pub(super) fn kvm(root: &Path) -> Finding {
    let device = root.join("dev/kvm");
    match File::options().read(true).write(true).open(&device) {
        Ok(_) => probe(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Finding {
            check: "kvm",
            status: Status::Unknown,
            detail: "/dev/kvm is there, and only the daemon, which is root, has to open it".into(),
            remedy: Some("sudo nitro-cli doctor".into()),
        },
        Err(error) => Finding::wrong(
            "kvm",
            Status::Failed,
            format!(
                "/dev/kvm cannot be opened: {error}. Virtualisation may be off in the firmware, or not nested"
            ),
            "sudo modprobe -a kvm_intel kvm_amd",
        ),
    }
}

fn probe() -> Finding {
    let Some(vmm) = find_vmm() else {
        return Finding::wrong(
            "kvm",
            Status::Failed,
            format!("{VMM} is neither beside nitro-cli nor in PATH"),
            "sudo apt install ./enclaved_*_amd64.deb",
        );
    };
    match run(&vmm) {
        Ok(Ok(())) => Finding::ok("kvm", "a test guest runs"),
        Ok(Err(why)) => Finding::wrong(
            "kvm",
            Status::Failed,
            why,
            "use a machine with virtualisation in hardware, or enable nested virtualisation for this one",
        ),
        Err(error) => Finding::wrong(
            "kvm",
            Status::Failed,
            format!("{} cannot be run: {error}", vmm.display()),
            "sudo apt install --reinstall ./enclaved_*_amd64.deb",
        ),
    }
}

/// The VMM beside this program, else the first in PATH.
fn find_vmm() -> Option<PathBuf> {
    let beside = env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(VMM)));
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).map(|directory| directory.join(VMM));
    beside.into_iter().chain(in_path).find(|path| path.is_file())
}

/// Runs the test; why it has failed.
fn run(vmm: &Path) -> io::Result<Result<(), String>> {
    let mut child = Command::new(vmm)
        .arg("probe")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + PROBE_LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(Err(
                "the test guest does not end: this KVM does not run guests".into()
            ));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(Err(text.trim().replace('\n', " ")))
}

/// Whether there are hugepages, which all of an enclave's memory is made of.
pub(super) fn hugepages(root: &Path) -> Finding {
    let mut found = Vec::new();
    let mut free_mib = 0_u64;
    for directory in list(&root.join("sys/kernel/mm/hugepages")) {
        let name = directory.file_name().unwrap_or_default().to_string_lossy();
        let size = name
            .strip_prefix("hugepages-")
            .and_then(|rest| rest.strip_suffix("kB")?.parse::<u64>().ok())
            .map(|kib| kib / 1024);
        let total = number(&directory.join("nr_hugepages")).unwrap_or(0);
        let free = number(&directory.join("free_hugepages")).unwrap_or(0);
        if let Some(size) = size.filter(|_| total > 0) {
            found.push(format!("{total} of {size} MiB ({free} free)"));
            free_mib = free_mib.saturating_add(free.saturating_mul(size));
        }
    }
    found.sort();
    let remedy =
        "sudo systemctl enable --now nitro-enclaves-allocator   (or `sudo sysctl vm.nr_hugepages=512`)";
    if found.is_empty() {
        return Finding::wrong("hugepages", Status::Failed, "there are none", remedy);
    }
    let detail = found.join(", ");
    if free_mib == 0 {
        return Finding::wrong("hugepages", Status::Warning, detail, "nitro-cli describe-pools");
    }
    Finding::ok("hugepages", detail)
}

/// Whether an enclave's CPUs can be its alone.
pub(super) fn control_groups(root: &Path) -> Finding {
    let controllers = fs::read_to_string(root.join("sys/fs/cgroup/cgroup.controllers")).unwrap_or_default();
    if !controllers.split_whitespace().any(|name| name == "cpuset") {
        return Finding::wrong(
            "cgroup",
            Status::Warning,
            "there is no cgroup v2 with a cpuset controller: other programs may run on the CPUs of enclaves",
            "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line",
        );
    }
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    let release = release.trim();
    if version(release).is_some_and(|version| version < KERNEL_WITH_REMOTE_PARTITIONS) {
        return Finding::wrong(
            "cgroup",
            Status::Warning,
            format!("Linux {release} cannot isolate CPUs: other programs may run on those of enclaves"),
            "install Linux 6.7 or later",
        );
    }
    Finding::ok("cgroup", "v2 with cpuset: the CPUs of an enclave are its alone")
}

/// Major and minor number of a kernel.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the kernel can carry vsock to guests.
pub(super) fn vhost_vsock(root: &Path) -> Finding {
    if root.join("dev/vhost-vsock").exists() {
        return Finding::ok(
            "vhost-vsock",
            "/dev/vhost-vsock is there: programs reach enclaves through AF_VSOCK, unless --vsock unix is said",
        );
    }
    Finding::wrong(
        "vhost-vsock",
        Status::Warning,
        "there is no /dev/vhost-vsock: programs reach enclaves through Unix sockets only, not through AF_VSOCK",
        "sudo modprobe vhost_vsock",
    )
}

/// Who runs this.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: u32,
    pub(super) groups: Vec<u32>,
}

impl User {
    pub(super) fn current() -> Self {
        let mut groups: Vec<u32> = rustix::process::getgroups()
            .unwrap_or_default()
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        groups.push(rustix::process::getegid().as_raw());
        Self {
            id: rustix::process::geteuid().as_raw(),
            groups,
        }
    }
}

/// Whether the user may use the daemon.
pub(super) fn group(root: &Path, user: &User) -> Finding {
    let table = fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    let group = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(GROUP);
        found.then(|| fields.nth(1)?.parse::<u32>().ok()).flatten()
    });
    let Some(group) = group else {
        return Finding::wrong(
            "group",
            if user.id == 0 {
                Status::Warning
            } else {
                Status::Failed
            },
            format!("there is no group {GROUP}: only root may use the daemon"),
            format!("sudo groupadd --system {GROUP} && sudo systemctl restart enclaved.socket enclaved"),
        );
    };
    if user.id == 0 {
        return Finding::ok("group", format!("root needs none; the group {GROUP} is there"));
    }
    if user.groups.contains(&group) {
        return Finding::ok("group", format!("this user is in the group {GROUP}"));
    }
    Finding::wrong(
        "group",
        Status::Failed,
        format!("this user is not in the group {GROUP}, or has not logged in again since"),
        format!("sudo usermod -aG {GROUP} $USER   (then log in again, or `newgrp {GROUP}`)"),
    )
}

/// Whether the clock can be right: certificates and signatures are checked by it.
pub(super) fn clock(now: SystemTime) -> Finding {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = image::rfc3339(u32::try_from(seconds).unwrap_or(u32::MAX));
    if seconds < EARLIEST {
        return Finding::wrong(
            "clock",
            Status::Failed,
            format!("it says {time}, which is past: no attestation, and signed images are refused"),
            "sudo timedatectl set-ntp true",
        );
    }
    Finding::ok("clock", format!("it says {time}"))
}

/// Whether images can be built.
pub(super) fn blobs(directory: &Path) -> Finding {
    let missing: Vec<&str> = ["bzImage", "bzImage.config", "cmdline", "init"]
        .into_iter()
        .filter(|name| !directory.join(name).is_file())
        .collect();
    if missing.is_empty() {
        return Finding::ok("blobs", format!("{} has all", directory.display()));
    }
    Finding::wrong(
        "blobs",
        Status::Warning,
        format!(
            "{} lacks {}: build-enclave does not work",
            directory.display(),
            missing.join(", ")
        ),
        "export NITRO_CLI_BLOBS=DIRECTORY   (`cargo xtask demo` makes one, the Debian package has them)",
    )
}

/// Whether commands leave a log.
pub(super) fn logs(directory: &Directory) -> Finding {
    let path = match directory {
        Directory::Default => Path::new(log::DEFAULT_DIRECTORY),
        Directory::Named(path) => path,
    };
    if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok() {
        return Finding::ok("logs", format!("they are in {}", path.display()));
    }
    Finding::wrong(
        "logs",
        Status::Warning,
        format!(
            "{} is not there or not writable: commands leave no log",
            path.display()
        ),
        format!("sudo install -d -m 2775 -g {GROUP} {}", path.display()),
    )
}

/// The entries of a directory; none of one that is not there.
fn list(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    /// What is wrong has a remedy, and what is right has none.
    #[track_caller]
    fn assert_found(finding: &Finding, status: Status, part: &str) {
        assert_eq!(finding.status, status, "{finding:?}");
        assert!(finding.detail.contains(part), "{finding:?}");
        assert_eq!(finding.remedy.is_none(), status == Status::Ok, "{finding:?}");
    }

    #[test]
    fn a_machine_without_kvm_fails() {
        assert_found(
            &kvm(machine(&[]).path()),
            Status::Failed,
            "/dev/kvm cannot be opened",
        );
    }

    #[test]
    fn hugepages_are_counted_by_size() {
        let pages = |size: &str, total: &str, free: &str| {
            machine(&[
                (
                    &format!("sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages"),
                    total,
                ),
                (
                    &format!("sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages"),
                    free,
                ),
            ])
        };
        assert_found(&hugepages(machine(&[]).path()), Status::Failed, "none");
        assert_found(
            &hugepages(pages("2048", "0\n", "0\n").path()),
            Status::Failed,
            "none",
        );
        let taken = pages("1048576", "2\n", "0\n");
        assert_found(
            &hugepages(taken.path()),
            Status::Warning,
            "2 of 1024 MiB (0 free)",
        );
        let free = pages("2048", "256\n", "255\n");
        assert_found(&hugepages(free.path()), Status::Ok, "256 of 2 MiB (255 free)");
    }

    #[test]
    fn exclusive_cpus_need_a_controller_and_a_kernel() {
        let groups = |controllers: &str, release: &str| {
            let root = machine(&[
                ("sys/fs/cgroup/cgroup.controllers", controllers),
                ("proc/sys/kernel/osrelease", release),
            ]);
            control_groups(root.path())
        };
        assert_found(&control_groups(machine(&[]).path()), Status::Warning, "cgroup v2");
        assert_found(&groups("cpu memory\n", "6.12.1\n"), Status::Warning, "cgroup v2");
        assert_found(
            &groups("cpuset cpu\n", "6.6.99-cloud\n"),
            Status::Warning,
            "Linux 6.6.99-cloud",
        );
        assert_found(&groups("cpuset cpu\n", "6.7-rc1\n"), Status::Ok, "");
        assert_found(&groups("cpuset cpu\n", "10.0.1\n"), Status::Ok, "");
    }

    #[test]
    fn membership_is_of_the_process_and_not_of_the_table() {
        let with = machine(&[("etc/group", "root:x:0:\nnever:x:5:\nne:x:977:me\n")]);
        let user = |id, groups: &[u32]| User {
            id,
            groups: groups.to_vec(),
        };

        assert_found(
            &group(with.path(), &user(1000, &[1000, 977])),
            Status::Ok,
            "is in",
        );
        assert_found(
            &group(with.path(), &user(1000, &[1000, 5])),
            Status::Failed,
            "not in",
        );
        assert_found(&group(with.path(), &user(0, &[0])), Status::Ok, "root");
        let without = machine(&[("etc/group", "root:x:0:\n")]);
        assert_found(
            &group(without.path(), &user(1000, &[977])),
            Status::Failed,
            "no group",
        );
        assert_found(
            &group(without.path(), &user(0, &[0])),
            Status::Warning,
            "no group",
        );
    }

    #[test]
    fn a_clock_that_was_never_set_fails() {
        let at = |seconds| clock(UNIX_EPOCH + Duration::from_secs(seconds));

        assert_found(&at(0), Status::Failed, "1970-01-01");
        assert_found(&at(EARLIEST - 1), Status::Failed, "2025-12-31");
        assert_found(&at(EARLIEST), Status::Ok, "2026-01-01");
    }

    #[test]
    fn missing_blobs_logs_and_vsock_are_warnings() {
        let all = machine(&[
            ("bzImage", ""),
            ("bzImage.config", ""),
            ("cmdline", ""),
            ("init", ""),
            ("dev/vhost-vsock", ""),
        ]);
        assert_found(&blobs(all.path()), Status::Ok, "has all");
        assert_found(&vhost_vsock(all.path()), Status::Ok, "");
        assert_found(&logs(&Directory::Named(all.path().into())), Status::Ok, "");
        fs::remove_file(all.path().join("init")).unwrap();
        assert_found(&blobs(all.path()), Status::Warning, "lacks init");
        let nothing = machine(&[]);
        assert_found(&vhost_vsock(nothing.path()), Status::Warning, "AF_VSOCK");
        let missing = Directory::Named(nothing.path().join("missing"));
        assert_found(&logs(&missing), Status::Warning, "no log");
    }
}
