//! What a machine has beside Debian's packages so that systemd is its process 1.
//!
//! The packages' maintainer scripts do not run, so what they would leave is here: an identity for the machine, an empty
//! dpkg database. Units that make no sense on a machine without disk, users and udev, and those that only cost an
//! emulated processor time, are masked. The command is a unit like any other, started when the boot is complete.

/// systemd; dpkg with the programs that it insists on (`diff`, `ldconfig`); Debian's shell for maintainer scripts, since
/// busybox's runs its own tools, a small dpkg among them, before those in `PATH`.
pub(crate) const PACKAGES: [&str; 5] = ["systemd", "dpkg", "diffutils", "libc-bin", "dash"];

/// What dpkg expects to find.
pub(crate) const DIRECTORIES: [&str; 2] = ["var/lib/dpkg/info", "var/lib/dpkg/updates"];

/// Path and contents of files.
pub(crate) const FILES: [(&str, &str); 6] = [
    ("etc/hostname", "parent\n"),
    ("etc/machine-id", "656e636c6176656400706172656e7400\n"),
    (
        "etc/systemd/system/parent-session.service",
        include_str!("session.service"),
    ),
    // Younger than /usr: no caches of /usr are to be built at boot.
    ("etc/.updated", ""),
    ("var/.updated", ""),
    ("var/lib/dpkg/status", ""),
];

/// Generators look for file systems, terminals and scripts that are not there.
pub(crate) const GENERATORS: &str = "lib/systemd/system-generators";

const MASKED: [&str; 15] = [
    "getty.target",
    "modprobe@.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-initctl.socket",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
];

/// Path and target of symbolic links.
pub(crate) fn links() -> Vec<(String, &'static str)> {
    let unit = |name: &str| format!("etc/systemd/system/{name}");
    let masks = MASKED.iter().map(|name| (unit(name), "/dev/null"));
    let units = [
        (unit("default.target"), "/lib/systemd/system/multi-user.target"),
        (
            unit("multi-user.target.wants/parent-session.service"),
            "../parent-session.service",
        ),
    ];
    masks.chain(units).collect()
}
