//! One running QEMU: its process, its ports and its directory.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::directory::Directory;
use crate::error::at;
use crate::instance::Session;
use crate::{Config, Error, initramfs, qemu};

/// What QEMU itself says; most of it is warnings about processor features that TCG does not emulate.
const QEMU_LOG: &str = "qemu.log";

/// How often a QEMU that has not opened its ports yet is looked after.
const START_POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// A QEMU process, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    directory: Directory,
}

/// The outer ends of a machine's virtio-serial ports. They are closed when QEMU ends.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) status: UnixStream,
    pub(crate) stdout: UnixStream,
    pub(crate) stderr: UnixStream,
    pub(crate) terminal: UnixStream,
}

impl Machine {
    /// Starts QEMU and waits until it has opened its ports. The calling thread must live as long as the machine shall:
    /// the kernel kills QEMU when that thread ends.
    pub(crate) fn start(
        config: &Config,
        packages: Option<&Path>,
        session: &Session,
    ) -> Result<(Self, Ports), Error> {
        let directory = Directory::create()?;
        let initramfs = directory.path().join(qemu::INITRAMFS);
        initramfs::write(config, packages, session, &initramfs)?;
        let listen = |name| {
            let path = qemu::socket(directory.path(), name);
            UnixListener::bind(&path).map_err(at("listen at", &path))
        };
        let (status, stdout, stderr) = (
            listen(qemu::STATUS)?,
            listen(qemu::STDOUT)?,
            listen(qemu::STDERR)?,
        );
        let terminal = listen(qemu::TERMINAL)?;

        let arguments = qemu::arguments(config, directory.path());
        let qemu = spawn(arguments, &directory.path().join(QEMU_LOG))?;
        let mut machine = Self { qemu, directory };
        let ports = Ports {
            status: machine.accept(&status)?,
            stdout: machine.accept(&stdout)?,
            stderr: machine.accept(&stderr)?,
            terminal: machine.accept(&terminal)?,
        };
        Ok((machine, ports))
    }

    /// Removes what a QEMU that has come to run the guest has read or connected to, so that a caller that is killed from
    /// now on leaves only logs.
    pub(crate) fn remove_start_files(&self) -> Result<(), Error> {
        let directory = self.directory.path();
        let sockets = qemu::PORTS.map(|name| qemu::socket(directory, name));
        for path in sockets.iter().chain([&directory.join(qemu::INITRAMFS)]) {
            fs::remove_file(path).map_err(at("remove", path))?;
        }
        Ok(())
    }

    /// Waits for QEMU to connect, or to end.
    fn accept(&mut self, listener: &UnixListener) -> Result<UnixStream, Error> {
        let failed = |source| Error::Stream {
            action: "connect to a port of the machine",
            source,
        };
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut events, Some(&START_POLL)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(listener.accept().map_err(failed)?.0),
                Err(error) => return Err(failed(error.into())),
            }
            if self.qemu.try_wait().map_err(failed)?.is_some() {
                return Err(self.ended());
            }
        }
    }

    /// Keeps the logs and tells where the kernel's is.
    pub(crate) fn keep_log(&mut self) -> PathBuf {
        self.directory.keep();
        self.directory.path().join(qemu::CONSOLE_LOG)
    }

    /// Ends QEMU now. Its ports are closed after this.
    pub(crate) fn kill(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }

    /// Why QEMU has ended without being asked to: in its own words if it has any, else something inside did it.
    pub(crate) fn ended(&mut self) -> Error {
        let output = self.qemu_messages();
        if output.is_empty() {
            Error::Ended { log: self.keep_log() }
        } else {
            Error::Qemu { output }
        }
    }

    fn qemu_messages(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join(QEMU_LOG)).unwrap_or_default();
        let lines = log
            .lines()
            .filter(|line| !line.contains("TCG doesn't support requested feature"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(arguments: Vec<OsString>, log: &Path) -> Result<Child, Error> {
    let output = File::create(log).map_err(at("create", log))?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(at("open", log))?)
        .stderr(output)
        .spawn()
        .map_err(|source| Error::Spawn {
            program: "setpriv",
            source,
        })
}
