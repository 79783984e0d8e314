//! What a guest would try that commands its VMM's process: to get at what is the daemon's, root's or another enclave's.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// What the daemon keeps in the enclave's own directory, which is the working directory.
const DAEMONS_OWN: [&str; 5] = ["pcrs.json", "enclave.json", "outcome", "log.pipe", "nsm.sock"];

/// Tries everything, with `files` among what must not be opened, and tells each result.
pub(crate) fn try_everything(files: &[PathBuf], found: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    let own = DAEMONS_OWN.iter().map(PathBuf::from);
    for file in files.iter().cloned().chain(own) {
        tell(&found, "read", file.display(), File::open(&file))?;
        let opened = File::options().append(true).open(&file);
        tell(&found, "write", file.display(), opened)?;
    }
    tell(&found, "make", "a listener", UnixListener::bind("vsock.sock_99"))?;
    tell(&found, "remove", "a socket", fs::remove_file("vsock.sock"))?;
    tell(
        &found,
        "replace",
        "registers",
        fs::rename("vsock.sock_9001", "pcrs.json"),
    )?;
    tell(&found, "list", "own directory", fs::read_dir("."))?;
    tell(
        &found,
        "command",
        "daemon",
        UnixStream::connect("../enclaved.sock"),
    )?;
    for neighbour in neighbours()? {
        tell(&found, "list", neighbour.display(), fs::read_dir(&neighbour))?;
        let socket = UnixStream::connect(neighbour.join("vsock.sock"));
        tell(&found, "connect", neighbour.display(), socket)?;
    }
    for process in processes()? {
        let memory = format!("/proc/{}/mem", process.as_raw_nonzero());
        let descriptors = format!("/proc/{}/fd", process.as_raw_nonzero());
        tell(&found, "read", &memory, File::open(&memory))?;
        tell(&found, "list", &descriptors, fs::read_dir(&descriptors))?;
        let signalled = rustix::process::test_kill_process(process);
        tell(
            &found,
            "signal",
            process.as_raw_nonzero(),
            signalled.map_err(io::Error::from),
        )?;
    }
    found("that was all")
}

pub(crate) fn tell<T>(
    found: impl Fn(&str) -> io::Result<()>,
    what: &str,
    whom: impl Display,
    result: io::Result<T>,
) -> io::Result<()> {
    let outcome = match result {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    };
    found(&format!("tried {what} {whom}: {outcome}"))
}

/// The directories of other enclaves.
fn neighbours() -> io::Result<Vec<PathBuf>> {
    let own = rustix::fs::stat(".")?.st_ino;
    let entries = fs::read_dir("..")?.flatten();
    let paths = entries.map(|entry| entry.path());
    let is_other = |path: &PathBuf| rustix::fs::stat(path).is_ok_and(|status| status.st_ino != own);
    Ok(paths.filter(|path| path.is_dir() && is_other(path)).collect())
}

/// The daemon, and the VMMs of other enclaves.
fn processes() -> io::Result<Vec<Pid>> {
    let is_wanted = |process: Pid| {
        let name = Path::new("/proc")
            .join(process.as_raw_nonzero().to_string())
            .join("comm");
        let name = fs::read_to_string(name).unwrap_or_default();
        process != rustix::process::getpid() && matches!(name.trim_end(), "enclave-vmm" | "enclaved")
    };
    let entries = fs::read_dir("/proc")?.flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers
        .filter_map(Pid::from_raw)
        .filter(|process| is_wanted(*process))
        .collect())
}
