//! The file systems: making the image's root the root, and what programs expect to be mounted in it.
//!
//! Order, places and flags are those of AWS's init, so that a program finds what it finds there.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};

use crate::console;
use crate::error::Error;

const NO_DEVICES_SUID_EXEC: MountFlags = MountFlags::NODEV
    .union(MountFlags::NOSUID)
    .union(MountFlags::NOEXEC);
const NO_SUID_EXEC: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// One `mount` call. The mount point is made if the image lacks it.
struct Mount {
    file_system: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: Option<&'static CStr>,
}

const DEV: Mount = Mount {
    file_system: "devtmpfs",
    target: "/dev",
    flags: NO_SUID_EXEC,
    data: None,
};

/// What is mounted in the image's root after `/dev`, in this order.
const MOUNTS: [Mount; 7] = [
    Mount {
        file_system: "proc",
        target: "/proc",
        flags: NO_DEVICES_SUID_EXEC,
        data: None,
    },
    Mount {
        file_system: "tmpfs",
        target: "/run",
        flags: NO_DEVICES_SUID_EXEC,
        data: Some(c"mode=0755"),
    },
    Mount {
        file_system: "tmpfs",
        target: "/tmp",
        flags: NO_DEVICES_SUID_EXEC,
        data: None,
    },
    Mount {
        file_system: "tmpfs",
        target: "/dev/shm",
        flags: NO_DEVICES_SUID_EXEC,
        data: None,
    },
    Mount {
        file_system: "devpts",
        target: "/dev/pts",
        flags: NO_SUID_EXEC,
        data: None,
    },
    Mount {
        file_system: "sysfs",
        target: "/sys",
        flags: NO_DEVICES_SUID_EXEC,
        data: None,
    },
    Mount {
        file_system: "tmpfs",
        target: CGROUPS,
        flags: NO_DEVICES_SUID_EXEC,
        data: Some(c"mode=0755"),
    },
];

/// Links in `/dev` to the process's own descriptors.
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// Where each cgroup v1 controller gets its directory.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Mounts `/dev` of the ramdisk, unless the kernel has.
pub(crate) fn early_dev() -> Result<(), Error> {
    match try_mount(&DEV) {
        Err(Error::Mount { source, .. }) if source.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
            Ok(())
        }
        other => other,
    }
}

/// Makes `root` the root directory. The ramdisk's own root cannot be unmounted; it is covered.
pub(crate) fn enter_root(root: &Path) -> Result<(), Error> {
    // Only a mount can be moved onto `/`, so the directory is made one.
    mount_bind(root, root).map_err(Error::at("bind-mount", root))?;
    rustix::process::chdir(root).map_err(Error::at("change to", root))?;
    mount_move(".", "/").map_err(Error::at("make the root of", root))?;
    rustix::process::chroot(".").map_err(Error::at("change the root to", root))?;
    rustix::process::chdir("/").map_err(Error::at("change to", Path::new("/")))
}

/// Mounts everything that a program expects.
pub(crate) fn populate_root() -> Result<(), Error> {
    try_mount(&DEV)?;
    for entry in &MOUNTS {
        try_mount(entry)?;
    }
    for (link, target) in LINKS {
        match symlink(target, link) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::at("make the link", Path::new(link))(error));
            }
            _ => {}
        }
    }
    mount_cgroups()
}

fn try_mount(entry: &Mount) -> Result<(), Error> {
    let Mount {
        file_system,
        target,
        flags,
        data,
    } = *entry;
    make_directory(Path::new(target))?;
    mount(file_system, target, file_system, flags, data).map_err(|errno| Error::Mount {
        file_system,
        target,
        source: errno.into(),
    })
}

fn make_directory(path: &Path) -> Result<(), Error> {
    // The image may have a link where a directory is usual, so what counts is whether there is a directory behind it.
    if path.is_dir() {
        Ok(())
    } else {
        fs::create_dir_all(path).map_err(Error::at("make the directory", path))
    }
}

/// Mounts each enabled cgroup v1 controller in a directory of its own.
///
/// A kernel that has none, or refuses one, is no reason to end the enclave: few programs use them.
fn mount_cgroups() -> Result<(), Error> {
    let Ok(table) = fs::read_to_string("/proc/cgroups") else {
        return Ok(());
    };
    for controller in enabled_controllers(&table) {
        let target = Path::new(CGROUPS).join(controller);
        make_directory(&target)?;
        let name = std::ffi::CString::new(controller).unwrap_or_default();
        if let Err(errno) = mount(
            controller,
            &target,
            "cgroup",
            NO_DEVICES_SUID_EXEC,
            Some(name.as_c_str()),
        ) {
            console::say(&format!("no cgroup v1 controller `{controller}`: {errno}"));
        }
    }
    Ok(())
}

/// Parses `/proc/cgroups`: `name hierarchy cgroups enabled`, after a heading that begins with `#`.
fn enabled_controllers(table: &str) -> impl Iterator<Item = &str> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let name = fields.next()?;
            (fields.nth(2)? == "1").then_some(name)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enabled_controllers_are_taken_from_the_kernels_table() {
        let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                     cpuset\t0\t1\t1\n\
                     memory\t0\t1\t0\n\
                     pids\t0\t1\t1\n\
                     truncated\t0\n\n";
        assert_eq!(enabled_controllers(table).collect::<Vec<_>>(), ["cpuset", "pids"]);
    }

    #[test]
    fn a_directory_behind_a_link_is_a_directory() {
        let image = tempfile::tempdir().unwrap();
        let link = image.path().join("run");
        fs::create_dir(image.path().join("var")).unwrap();
        symlink("var", &link).unwrap();
        make_directory(&link).unwrap();
        make_directory(&image.path().join("a/b")).unwrap();
        assert!(image.path().join("a/b").is_dir());
    }

    #[test]
    fn a_file_in_the_way_of_a_directory_is_named() {
        let image = tempfile::tempdir().unwrap();
        fs::write(image.path().join("tmp"), "").unwrap();
        let error = make_directory(&image.path().join("tmp")).unwrap_err();
        assert!(error.to_string().ends_with("/tmp"), "{error}");
    }
}
