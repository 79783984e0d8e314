//! The machine's only file system: an initramfs with busybox, process 1, the command, the caller's files and the Debian
//! packages. It is not compressed, because an emulated processor unpacks slower than the host copies.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use image::cpio::{Attributes, Device, Writer};

use crate::error::at;
use crate::instance::Session;
use crate::terminal::Size;
use crate::{Config, Error, GuestFile, qemu, systemd};

/// Directories that process 1 mounts on or writes to, or that programs expect.
const DIRECTORIES: [&str; 13] = [
    "bin", "dev", "etc", "parent", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin",
    "var/log",
];

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUPS: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
/// The group that may talk to the daemon. With systemd, whoever installs the daemon makes it.
const DAEMON_GROUP: &str = "ne:x:900:\n";
const HOSTS: &str = "127.0.0.1 localhost parent\n::1 localhost\n";

/// Parts of Debian packages that no program needs to run.
const UNUSED: [&str; 7] = [
    systemd::GENERATORS,
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/doc-base",
];

/// Writes the initramfs of one machine to `path`. `packages` is a directory of unpacked Debian packages.
pub(crate) fn write(
    config: &Config,
    packages: Option<&Path>,
    session: &Session,
    path: &Path,
) -> Result<(), Error> {
    let mut archive = Archive::create(path)?;
    for directory in DIRECTORIES {
        archive.directories(directory)?;
    }
    archive.add(|cpio| {
        let console = Device::Character { major: 5, minor: 1 };
        cpio.device("dev/console", Attributes::new(0o600), console)
    })?;
    archive.text("etc/passwd", 0o644, PASSWD)?;
    let daemon_group = if config.systemd { "" } else { DAEMON_GROUP };
    archive.text("etc/group", 0o644, &[GROUPS, daemon_group].concat())?;
    archive.text("etc/hosts", 0o644, HOSTS)?;
    archive.busybox(&config.busybox)?;
    // After busybox: where a package has a tool of the same name, the kernel replaces the earlier entry.
    if let Some(packages) = packages {
        archive.tree(packages, Path::new(""))?;
    }
    if config.systemd {
        archive.systemd()?;
    }
    archive.text("init", 0o755, include_str!("enter.sh"))?;
    archive.text("parent/init.sh", 0o755, include_str!("init.sh"))?;
    archive.text("parent/session.sh", 0o755, include_str!("session.sh"))?;
    archive.text("parent/settings", 0o644, &settings(config, session))?;
    archive.text("parent/command", 0o755, &command_script(session.command()))?;
    for GuestFile { host, guest } in &config.files {
        archive.file(host, guest.trim_start_matches('/'))?;
    }
    archive.finish()
}

/// Shell variables for `init.sh` and `session.sh`.
fn settings(config: &Config, session: &Session) -> String {
    let yes = |condition: bool| if condition { "yes" } else { "" };
    let nodes = u64::from(config.nodes);
    let size = Size::of_terminal();
    let mut text = String::new();
    for (name, value) in [
        ("PORTS", qemu::PORTS.join(" ")),
        ("SHARE", yes(config.share.is_some()).into()),
        ("HUGEPAGES_2M", (config.hugepages_2m / nodes).to_string()),
        ("HUGEPAGES_1G", (config.hugepages_1g / nodes).to_string()),
        ("SYSTEMD", yes(config.systemd).into()),
        ("DAEMON", yes(config.daemon).into()),
        ("TERMINAL", yes(session.is_interactive()).into()),
        ("TERM", std::env::var("TERM").unwrap_or_else(|_| "linux".into())),
        ("ROWS", size.rows.to_string()),
        ("COLUMNS", size.columns.to_string()),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}={}", quoted(&value));
    }
    text
}

/// The command as a script that becomes it. Arguments arrive as they are: no shell reads them.
fn command_script(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    format!("#!/bin/sh\nexec {}\n", words.join(" "))
}

/// `text` as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A cpio archive in a file, which knows the directories it has.
struct Archive<'a> {
    path: &'a Path,
    cpio: Writer<BufWriter<File>>,
    directories: BTreeSet<Vec<u8>>,
}

impl<'a> Archive<'a> {
    fn create(path: &'a Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(at("create", path))?;
        let cpio = Writer::new(BufWriter::new(file));
        Ok(Self {
            path,
            cpio,
            directories: BTreeSet::new(),
        })
    }

    fn finish(self) -> Result<(), Error> {
        let path = self.path;
        let mut file = self.cpio.finish().map_err(|error| write_error(path, error))?;
        file.flush().map_err(at("write", path))
    }

    fn add(
        &mut self,
        entry: impl FnOnce(&mut Writer<BufWriter<File>>) -> Result<(), image::cpio::Error>,
    ) -> Result<(), Error> {
        entry(&mut self.cpio).map_err(|error| write_error(self.path, error))
    }

    fn text(&mut self, name: &str, mode: u16, text: &str) -> Result<(), Error> {
        self.add(|cpio| cpio.file(name, Attributes::new(mode), text))
    }

    /// A directory and the directories above it, each once: the kernel drops what has no parent.
    fn directories(&mut self, name: &str) -> Result<(), Error> {
        for (end, _) in name.match_indices('/').chain([(name.len(), "")]) {
            self.directory(&name.as_bytes()[..end], 0o755)?;
        }
        Ok(())
    }

    fn directory(&mut self, name: &[u8], mode: u16) -> Result<(), Error> {
        if self.directories.insert(name.to_vec()) {
            self.add(|cpio| cpio.directory(name, Attributes::new(mode)))?;
        }
        Ok(())
    }

    /// The directories above an entry.
    fn parents(&mut self, name: &str) -> Result<(), Error> {
        match name.rsplit_once('/') {
            Some((parents, _)) => self.directories(parents),
            None => Ok(()),
        }
    }

    /// A regular file of the host, and the directories above it.
    fn file(&mut self, host: &Path, name: &str) -> Result<(), Error> {
        self.parents(name)?;
        self.regular(host, name.as_bytes())
    }

    fn regular(&mut self, host: &Path, name: &[u8]) -> Result<(), Error> {
        let file = File::open(host).map_err(at("open", host))?;
        let metadata = file.metadata().map_err(at("read", host))?;
        let attributes = Attributes::new(mode_bits(&metadata));
        self.add(|cpio| cpio.file_from(name, attributes, metadata.len(), file))
    }

    /// A busybox and a link to it for each tool it has.
    fn busybox(&mut self, host: &Path) -> Result<(), Error> {
        self.file(host, "bin/busybox")?;
        let output = Command::new(host)
            .arg("--list-full")
            .output()
            .map_err(at("run", host))?;
        let tools = String::from_utf8_lossy(&output.stdout);
        for tool in tools.lines().filter(|tool| *tool != "bin/busybox") {
            self.parents(tool)?;
            self.add(|cpio| cpio.symlink(tool, "/bin/busybox"))?;
        }
        Ok(())
    }

    /// What systemd needs as process 1.
    fn systemd(&mut self) -> Result<(), Error> {
        for directory in systemd::DIRECTORIES {
            self.directories(directory)?;
        }
        for (path, text) in systemd::FILES {
            self.parents(path)?;
            self.text(path, 0o644, text)?;
        }
        for (path, target) in systemd::links() {
            self.parents(&path)?;
            self.add(|cpio| cpio.symlink(&path, target))?;
        }
        Ok(())
    }

    /// All of a directory of unpacked packages but [`UNUSED`]. `below` is relative to `root`.
    fn tree(&mut self, root: &Path, below: &Path) -> Result<(), Error> {
        let directory = root.join(below);
        let entries = fs::read_dir(&directory).map_err(at("read", &directory))?;
        let mut entries: Vec<_> = entries
            .collect::<Result<_, _>>()
            .map_err(at("read", &directory))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, relative) = (entry.path(), below.join(entry.file_name()));
            let name = relative.as_os_str().as_bytes();
            let metadata = entry.metadata().map_err(at("read", &path))?;
            if metadata.is_dir() {
                if !UNUSED.iter().any(|unused| relative == Path::new(unused)) {
                    self.directory(name, mode_bits(&metadata))?;
                    self.tree(root, &relative)?;
                }
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).map_err(at("read", &path))?;
                self.add(|cpio| cpio.symlink(name, target.as_os_str().as_bytes()))?;
            } else if metadata.is_file() {
                self.regular(&path, name)?;
            }
        }
        Ok(())
    }
}

/// Permissions with set-user-ID, set-group-ID and sticky bit.
fn mode_bits(metadata: &fs::Metadata) -> u16 {
    // The mask leaves 12 bits.
    u16::try_from(metadata.permissions().mode() & 0o7777).unwrap_or(0o755)
}

fn write_error(path: &Path, error: image::cpio::Error) -> Error {
    at("write", path)(std::io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reaches_the_shell_as_it_is() {
        let words = [
            "sh",
            "-c",
            "echo 'a b' \"$HOME\"; exit 3",
            "",
            "back\\slash",
            "new\nline",
        ];
        let words: Vec<String> = words.map(String::from).to_vec();
        let script = command_script(&words).replace("exec ", "printf '%s\\0' ");
        let output = Command::new("sh").arg("-c").arg(script).output().expect("sh");
        let printed = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!(printed.split_terminator('\0').collect::<Vec<_>>(), words);
    }

    #[test]
    fn settings_give_pages_for_each_node() {
        let config = Config {
            nodes: 2,
            hugepages_2m: 512,
            ..Config::new("kernel".into(), "busybox".into(), "cache".into())
        };
        let session = Session::Command(vec!["true".into()]);
        let settings = settings(&config, &session);
        assert!(settings.contains("HUGEPAGES_2M='256'\n"), "{settings}");
        assert!(settings.contains("DAEMON=''\n"), "{settings}");
    }

    #[test]
    fn files_bring_their_directories_once() {
        let directory = tempfile::tempdir().expect("directory");
        let host = directory.path().join("file");
        fs::write(&host, "contents").expect("write");
        let path = directory.path().join("archive");
        let mut archive = Archive::create(&path).expect("create");
        archive.file(&host, "opt/a/b").expect("first");
        archive.file(&host, "opt/a/c").expect("second");
        archive.finish().expect("finish");

        let output = Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(File::open(&path).expect("open"))
            .output()
            .expect("cpio");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "opt\nopt/a\nopt/a/b\nopt/a/c\n"
        );
    }
}
