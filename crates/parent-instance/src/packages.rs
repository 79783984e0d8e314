//! Debian packages for a machine: found, downloaded and unpacked with the host's apt and dpkg, nothing installed.
//!
//! apt is told that nothing is installed yet, so what it proposes is the whole closure of a package, down to the C
//! library. Maintainer scripts do not run, so there are no alternatives (`/usr/bin/awk`), users or caches that only they
//! would make.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::Error;
use crate::error::at;

const APT: &str = "apt-get";
const DPKG: &str = "dpkg-deb";

/// The unpacked closure of `packages`, a directory below `cache` whose name depends on the exact versions. What is there
/// already is neither downloaded nor unpacked again.
pub(crate) fn unpacked(packages: &[String], cache: &Path) -> Result<PathBuf, Error> {
    fs::create_dir_all(cache).map_err(at("create", cache))?;
    with_fresh_lists(|| fetched(packages, cache), || update_lists(packages, cache))
}

/// Does `fetch`. The host's package lists may be missing, or name versions that the mirror has since replaced: when apt
/// fails, they are updated and `fetch` is done once more. If they cannot be updated, the first failure is the one to tell.
fn with_fresh_lists<T>(
    mut fetch: impl FnMut() -> Result<T, Error>,
    update: impl FnOnce() -> Result<(), Error>,
) -> Result<T, Error> {
    match fetch() {
        Err(first @ Error::Packages { program: APT, .. }) => match update() {
            Ok(()) => fetch(),
            Err(_) => Err(first),
        },
        other => other,
    }
}

fn update_lists(packages: &[String], cache: &Path) -> Result<(), Error> {
    // apt itself does not wait for another update.
    let _lock = lock(cache)?;
    run(Command::new(APT).args(["update", "-qq"]), packages)?;
    Ok(())
}

fn fetched(packages: &[String], cache: &Path) -> Result<PathBuf, Error> {
    // apt lists only what it would still download, so it is shown a place where nothing is.
    let listing = run(
        apt(packages, &cache.join("empty")).args(["--print-uris", "-qq"]),
        packages,
    )?;
    let names = archive_names(&listing);
    let tree = cache.join(format!("packages-{}", key(&names)));
    if tree.exists() {
        return Ok(tree);
    }
    let _lock = lock(cache)?;
    if tree.exists() {
        // Another machine's preparation has made it while this one waited.
        return Ok(tree);
    }
    let archives = cache.join("archives");
    fs::create_dir_all(archives.join("partial")).map_err(at("create", &archives))?;
    run(
        apt(packages, &archives).args(["--download-only", "-qq"]),
        packages,
    )?;

    let unfinished = cache.join(format!("unfinished-{}", std::process::id()));
    remove(&unfinished)?;
    for name in &names {
        let mut dpkg = Command::new(DPKG);
        run(
            dpkg.arg("--extract").arg(archives.join(name)).arg(&unfinished),
            packages,
        )?;
    }
    remove(&tree)?;
    fs::rename(&unfinished, &tree).map_err(at("create", &tree))?;
    Ok(tree)
}

/// `apt-get install` as on a machine that has no packages, with `archives` as its place for downloads.
fn apt(packages: &[String], archives: &Path) -> Command {
    let mut command = Command::new(APT);
    command
        .args([
            "-o",
            "Dir::State::status=/dev/null",
            "-o",
            "Dir::Cache::pkgcache=",
            "-o",
            "Dir::Cache::srcpkgcache=",
        ])
        .args([
            "-o",
            "APT::Install-Recommends=false",
            "-o",
            "APT::Sandbox::User=root",
            "-y",
        ])
        .arg("-o")
        .arg(format!("Dir::Cache::archives={}", archives.display()))
        .arg("install")
        .args(packages);
    command
}

/// Runs `command` and returns its standard output.
fn run(command: &mut Command, packages: &[String]) -> Result<String, Error> {
    let program = if command.get_program() == APT { APT } else { DPKG };
    let output = command
        .output()
        .map_err(|source| Error::Spawn { program, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Packages {
        program,
        packages: packages.join(", "),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// File names from the lines `'URI' NAME SIZE HASH` of `apt-get --print-uris`, in apt's order.
fn archive_names(listing: &str) -> Vec<String> {
    let name = |line: &str| {
        let (_, rest) = line.strip_prefix('\'')?.split_once("' ")?;
        rest.split(' ')
            .next()
            .filter(|name| !name.contains('/'))
            .map(String::from)
    };
    listing.lines().filter_map(name).collect()
}

/// Names hold versions and architectures, and a Debian archive never changes a file under its name.
fn key(names: &[String]) -> String {
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let digest = Sha256::digest(sorted.join("\n"));
    let mut key = String::new();
    for byte in digest.iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// One download at a time; released when dropped.
fn lock(cache: &Path) -> Result<File, Error> {
    let path = cache.join("lock");
    let file = File::create(&path).map_err(at("create", &path))?;
    file.lock().map_err(at("lock", &path))?;
    Ok(file)
}

fn remove(directory: &Path) -> Result<(), Error> {
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(at("remove", directory))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_names_come_from_the_uri_lines_only() {
        let listing = "Reading package lists...\n\
            'http://deb/pool/libc6_2.36-9%2bdeb12u14_amd64.deb' libc6_2.36-9+deb12u14_amd64.deb 2759320 MD5Sum:8d\n\
            'http://deb/pool/evil' ../../etc/passwd.deb 1 MD5Sum:0\n\
            'http://deb/pool/socat_1.7.4.4-2_amd64.deb' socat_1.7.4.4-2_amd64.deb 375188 \n";
        assert_eq!(
            archive_names(listing),
            ["libc6_2.36-9+deb12u14_amd64.deb", "socat_1.7.4.4-2_amd64.deb"]
        );
    }

    fn failure(program: &'static str) -> Error {
        Error::Packages {
            program,
            packages: "socat".into(),
            output: "404  Not Found".into(),
        }
    }

    #[test]
    fn a_failed_apt_is_run_once_more_with_new_lists() {
        let mut fetches = 0;
        let mut updates = 0;
        let fetch = || {
            fetches += 1;
            if fetches == 1 {
                Err(failure(APT))
            } else {
                Ok("tree")
            }
        };
        let update = || {
            updates += 1;
            Ok(())
        };
        assert_eq!(with_fresh_lists(fetch, update).expect("the second time"), "tree");
        assert_eq!((fetches, updates), (2, 1));
    }

    #[test]
    fn the_first_failure_is_told_when_new_lists_do_not_help() {
        let offline = with_fresh_lists(|| Err::<(), _>(failure(APT)), || Err(failure(DPKG)));
        assert!(matches!(offline, Err(Error::Packages { program: APT, .. })));

        let mut updates = 0;
        let update = || {
            updates += 1;
            Ok(())
        };
        let broken = with_fresh_lists(|| Err::<(), _>(failure(DPKG)), update);
        assert!(matches!(broken, Err(Error::Packages { program: DPKG, .. })));
        assert_eq!(updates, 0, "lists have nothing to do with unpacking");
    }

    #[test]
    fn the_key_depends_on_versions_but_not_on_order() {
        let names = |list: [&str; 2]| list.map(String::from).to_vec();
        assert_eq!(
            key(&names(["a_1.deb", "b_1.deb"])),
            key(&names(["b_1.deb", "a_1.deb"]))
        );
        assert_ne!(
            key(&names(["a_1.deb", "b_1.deb"])),
            key(&names(["a_2.deb", "b_1.deb"]))
        );
    }
}
