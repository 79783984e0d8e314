//! The Debian packages that the other steps need.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::error::Error;
use crate::host::is_root;
use crate::process;
use crate::workspace::Workspace;

/// What installing them is called.
pub(crate) const STEP: &str = "Debian packages";

/// For all commands: QEMU and busybox for parent instances, what a kernel build needs, what `eif_build` links, cpio and
/// openssl, which tests compare with and make keys with, a registry and a builder of container images for them, and what a verifier of attestation documents in Python is
/// installed with.
const PACKAGES: [&str; 17] = [
    "bc",
    "bison",
    "build-essential",
    "buildah",
    "busybox-static",
    "cpio",
    "docker-registry",
    "flex",
    "libelf-dev",
    "libssl-dev",
    "linux-source-6.12",
    "lz4",
    "openssl",
    "pkg-config",
    "python3-venv",
    "qemu-system-x86",
    "xz-utils",
];

/// A package that starts a service when it is installed, and the service. Tests start a registry of their own and stop it; nobody
/// has asked for one that listens on this host.
const SERVICE: (&str, &str) = ("docker-registry", "docker-registry.service");

/// Package lists older than this are fetched anew before something is installed: mirrors drop replaced versions.
const LISTS_MAX_AGE: Duration = Duration::from_hours(24);

/// Where apt keeps the lists of the packages it can install.
const LISTS: &str = "/var/lib/apt/lists";

/// Installs what is missing and says what that is.
pub(crate) fn install(workspace: &Workspace) -> Result<(), Error> {
    let missing = missing(&PACKAGES)?;
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        return Err(Error::NotRoot(missing.join(" ")));
    }
    eprintln!("\n       installing {}", missing.join(" "));
    with_fresh_lists(
        lists_are_old(Path::new(LISTS)),
        || install_packages(workspace, &missing),
        || update(workspace),
    )?;
    if missing.contains(&SERVICE.0) {
        // Where there is no systemd, nothing was started.
        let mut disable = Command::new("systemctl");
        disable.args(["disable", "--now", SERVICE.1]);
        let _ = process::logged(&mut disable, &workspace.log("disable-service"));
    }
    Ok(())
}

/// Does `install`, after `update` if the lists are old. A mirror may have dropped the versions in lists of any age, so a
/// failure with lists that were not updated is answered by updating them and installing once more.
fn with_fresh_lists(
    are_old: bool,
    mut install: impl FnMut() -> Result<(), Error>,
    update: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    if !are_old {
        let Err(error) = install() else {
            return Ok(());
        };
        eprintln!("       {}", brief(&error));
        eprintln!("       once more, with new package lists");
    }
    update()?;
    install()
}

/// The first line of a message that may have a log in it.
fn brief(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn install_packages(workspace: &Workspace, packages: &[&str]) -> Result<(), Error> {
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "--no-install-recommends"])
        .args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    process::logged(&mut install, &workspace.log("apt-install"))
}

fn update(workspace: &Workspace) -> Result<(), Error> {
    process::logged(
        Command::new("apt-get").arg("update"),
        &workspace.log("apt-update"),
    )
}

/// The version of an installed package.
pub(crate) fn version(package: &str) -> Result<String, Error> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${Version}", package]);
    let output = query.output().map_err(|source| Error::Spawn {
        program: "dpkg-query".into(),
        source,
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>, Error> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages);
    // Its exit status is 1 when it does not know a package, which is what is asked.
    let output = query.output().map_err(|source| Error::Spawn {
        program: "dpkg-query".into(),
        source,
    })?;
    let listing = String::from_utf8_lossy(&output.stdout);
    Ok(packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package, &listing))
        .collect())
}

fn is_installed(package: &str, listing: &str) -> bool {
    listing
        .lines()
        .any(|line| line.strip_prefix(package) == Some(" installed"))
}

/// Also true if there are none.
fn lists_are_old(lists: &Path) -> bool {
    let Ok(entries) = fs::read_dir(lists) else {
        return true;
    };
    let newest = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("Release"))
        .filter_map(|entry| entry.metadata().and_then(|metadata| metadata.modified()).ok())
        .max();
    // A time in the future is not old.
    newest.is_none_or(|time| {
        SystemTime::now()
            .duration_since(time)
            .is_ok_and(|age| age > LISTS_MAX_AGE)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let listing = "bc installed\nbison not-installed\nlibelf-dev config-files\n";
        assert!(is_installed("bc", listing));
        for package in ["bison", "libelf-dev", "flex", "b"] {
            assert!(!is_installed(package, listing), "{package}");
        }
    }

    /// What is done, in order, when the lists are old or not and the first installation fails or not.
    fn course(are_old: bool, first_fails: bool) -> Vec<&'static str> {
        let done = RefCell::new(Vec::new());
        let install = || {
            let is_first = !done.borrow().contains(&"install");
            done.borrow_mut().push("install");
            if first_fails && is_first {
                Err(Error::NoCache)
            } else {
                Ok(())
            }
        };
        let update = || {
            done.borrow_mut().push("update");
            Ok(())
        };
        let result = with_fresh_lists(are_old, install, update);
        assert_eq!(result.is_err(), are_old && first_fails);
        done.into_inner()
    }

    #[test]
    fn a_failure_with_lists_of_any_age_is_tried_once_more_with_new_ones() {
        assert_eq!(course(false, false), ["install"]);
        assert_eq!(course(false, true), ["install", "update", "install"]);
        assert_eq!(course(true, false), ["update", "install"]);
        assert_eq!(course(true, true), ["update", "install"], "they were new already");
    }

    #[test]
    fn missing_lists_are_old_and_fresh_ones_are_not() {
        let directory = tempfile::tempdir().expect("directory");
        assert!(lists_are_old(&directory.path().join("none")));
        fs::write(directory.path().join("lock"), "").expect("write");
        assert!(lists_are_old(directory.path()));
        fs::write(directory.path().join("mirror_dists_bookworm_InRelease"), "").expect("write");
        assert!(!lists_are_old(directory.path()));
    }
}
