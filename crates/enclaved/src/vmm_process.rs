//! The real launcher: one `enclave-vmm` process per enclave.
//!
//! The process gets nothing but its end of a `SOCK_SEQPACKET` pair as standard input, a pipe as standard error and an empty
//! environment. Everything else it will ever hold comes as descriptors with the specification. It is started as root in its
//! enclave's directory, and told by arguments which user it is to become ([`crate::vmm_user`]): what else it must leave behind
//! before it reads anything, root file system and namespaces, only root can leave (`vmm/src/sandbox/jail.rs`).
//!
//! A process that an earlier daemon started is no child and has no socket any more. It is watched through a descriptor of
//! the process (pidfd), and its last event is found in the enclave's outcome file.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use api::sandbox::Layer;
use api::vmm::{Instruction, MAX_MESSAGE};
use api::{ErrorCode, Failure};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::Signal;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use crate::launcher::{Instance, Launch, Launcher, ProcessEnd, Said};
use crate::process_identity::ProcessIdentity;
use crate::run_directory::OUTCOME;

/// How a process ended that an earlier daemon has started.
const NOT_OUR_CHILD: &str = "its exit status is not known, since it was started by an earlier daemon";

/// Starts `enclave-vmm` processes.
#[derive(Debug)]
pub struct VmmLauncher {
    program: PathBuf,
    may_be_missing: Vec<Layer>,
}

impl VmmLauncher {
    /// A launcher of `program`, an absolute path. It runs without those layers of its sandbox that the machine does not give, if
    /// they are among `may_be_missing`.
    pub fn new(program: PathBuf, may_be_missing: Vec<Layer>) -> Self {
        Self {
            program,
            may_be_missing,
        }
    }

    /// What the VMM is to know before it reads its specification.
    fn arguments(&self, launch: &Launch) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(user) = launch.user {
            arguments.extend(["--user".to_owned(), user.id().to_string()]);
        }
        if !self.may_be_missing.is_empty() {
            let names: Vec<&str> = self.may_be_missing.iter().map(|layer| layer.name()).collect();
            arguments.extend(["--allow-missing".to_owned(), names.join(",")]);
        }
        arguments
    }
}

impl Launcher for VmmLauncher {
    type Instance = VmmProcess;

    /// Must be called on a Tokio runtime.
    fn launch(&self, launch: Launch) -> Result<VmmProcess, Failure> {
        let (control, vmm_end) = control_pair().map_err(|error| {
            Failure::caused_by(
                ErrorCode::SocketPairCreation,
                "No socket pair for the VMM",
                &error,
            )
        })?;
        let process = self.start(vmm_end, control, &launch).map_err(|error| {
            let context = format!("Starting the VMM {} failed", self.program.display());
            Failure::caused_by(ErrorCode::ProcessSpawn, &context, &error)
        })?;
        match process.send_launch(&launch) {
            // One that is gone already is noticed, with the reason, like one that goes later.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let context = "The VMM could not be given its specification";
                Err(Failure::caused_by(ErrorCode::EnclaveBootFailure, context, &error))
            }
            _ => Ok(process),
        }
    }

    /// Must be called on a Tokio runtime.
    fn take_over(&self, vmm: &ProcessIdentity, directory: &Path, lives: bool) -> io::Result<VmmProcess> {
        // One that has died since it was looked at is as good as gone.
        let process = match vmm.open().filter(|_| lives) {
            Some(process) => Process::Stranger(pipe::Receiver::from_owned_fd_unchecked(process)?),
            None => Process::Gone,
        };
        Ok(VmmProcess {
            identity: vmm.clone(),
            process,
            words: Words::Outcome(Some(directory.join(OUTCOME))),
            leaving: false,
        })
    }
}

impl VmmLauncher {
    fn start(&self, vmm_end: OwnedFd, control: OwnedFd, launch: &Launch) -> io::Result<VmmProcess> {
        // The VMM's user needs no way to the program, which may be under somebody's home directory.
        let program = rustix::fs::open(&self.program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        let child = command
            .arg0(&self.program)
            .args(self.arguments(launch))
            .env_clear()
            .current_dir(&launch.directory)
            // Ctrl-C in the daemon's terminal is for the daemon, which decides what becomes of its enclaves.
            .process_group(0)
            .stdin(Stdio::from(vmm_end))
            .stdout(Stdio::null())
            .stderr(Stdio::from(launch.descriptors.log.try_clone()?))
            .spawn()?;
        let process = VmmProcess::watch(child, control)?;
        if let Some(list) = &launch.process_list {
            // Before it is told anything, so that no thread of it can be ahead of it.
            let process_id = process.identity.process_id.to_string();
            match rustix::io::write(list, process_id.as_bytes()) {
                // It has ended already, which is noticed elsewhere.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(process)
    }
}

/// The daemon's end, which never blocks, and the VMM's, which does.
fn control_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// A running `enclave-vmm`.
#[derive(Debug)]
pub struct VmmProcess {
    identity: ProcessIdentity,
    process: Process,
    words: Words,
    leaving: bool,
}

#[derive(Debug)]
enum Process {
    Child(Child),
    /// One that another daemon has started: a pidfd, readable once it has ended. The type is that of a pipe, but nothing is
    /// asked of it that differs.
    Stranger(pipe::Receiver),
    /// One that has ended before it could be watched.
    Gone,
}

/// Where the events of a VMM come from.
#[derive(Debug)]
enum Words {
    /// A packet socket. The type is that of a stream, but nothing is asked of it that differs.
    Control(UnixStream),
    /// The file of the last one, unless it has been taken.
    Outcome(Option<PathBuf>),
}

impl VmmProcess {
    fn watch(mut child: Child, control: OwnedFd) -> io::Result<Self> {
        // It cannot have been waited for, so the number still means it.
        let identity = child.id().and_then(ProcessIdentity::of);
        let watched = UnixStream::from_std(control.into());
        match (identity, watched) {
            (Some(identity), Ok(control)) => Ok(Self {
                identity,
                process: Process::Child(child),
                words: Words::Control(control),
                leaving: false,
            }),
            (None, _) => {
                let _ = child.start_kill();
                Err(io::ErrorKind::NotFound.into())
            }
            (_, Err(error)) => {
                let _ = child.start_kill();
                Err(error)
            }
        }
    }

    /// Sends the specification with its descriptors in one packet.
    fn send_launch(&self, launch: &Launch) -> io::Result<()> {
        let message = serde_json::to_vec(&launch.spec)?;
        let descriptors = launch.descriptors.in_order();
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        self.send(&message, &mut ancillary)
    }

    fn send(&self, message: &[u8], ancillary: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
        let Words::Control(control) = &self.words else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let packet = [io::IoSlice::new(message)];
        rustix::net::sendmsg(control, &packet, ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl VmmProcess {
    fn instruct(&self, instruction: Instruction) {
        // A VMM that is gone is noticed elsewhere.
        let sent = serde_json::to_vec(&instruction)
            .map_err(io::Error::from)
            .and_then(|message| self.send(&message, &mut SendAncillaryBuffer::default()));
        if let Err(error) = sent {
            let process_id = self.identity.process_id;
            tracing::warn!(process_id, ?instruction, %error, "a VMM cannot be told what to do");
        }
    }
}

impl Instance for VmmProcess {
    fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    async fn next_event(&mut self) -> Said {
        match &mut self.words {
            Words::Control(control) => receive(control).await,
            Words::Outcome(outcome) => {
                ended(&mut self.process).await;
                outcome.take().map_or(Said::Closed, |path| read_outcome(&path))
            }
        }
    }

    fn accept(&mut self) {
        self.instruct(Instruction::Accept);
    }

    fn outlive(&mut self) {
        self.instruct(Instruction::Outlive);
    }

    fn kill(&mut self) {
        // Both fail only if the process is reaped already.
        match &mut self.process {
            Process::Child(child) => {
                let _ = child.start_kill();
            }
            Process::Stranger(process) => {
                let _ = rustix::process::pidfd_send_signal(process, Signal::KILL);
            }
            Process::Gone => {}
        }
    }

    fn leave(mut self) {
        self.leaving = true;
    }

    async fn wait(&mut self) -> ProcessEnd {
        ended(&mut self.process).await
    }
}

impl Drop for VmmProcess {
    fn drop(&mut self) {
        if !self.leaving {
            self.kill();
        }
    }
}

/// An exit status, with what a process is not told to make of it.
fn in_words(status: ExitStatus) -> String {
    if status.signal() == Some(Signal::SYS.as_raw()) {
        return format!(
            "{status}: it made a system call that is not its work, and that the kernel's log names"
        );
    }
    status.to_string()
}

async fn ended(process: &mut Process) -> ProcessEnd {
    match process {
        Process::Child(child) => match child.wait().await {
            Ok(status) => ProcessEnd(in_words(status)),
            Err(error) => ProcessEnd(format!("its end could not be seen: {error}")),
        },
        Process::Stranger(process) => match process.readable().await {
            // It stays readable from then on, so the readiness is kept.
            Ok(()) => ProcessEnd(NOT_OUR_CHILD.to_owned()),
            Err(error) => ProcessEnd(format!("its end could not be seen: {error}")),
        },
        Process::Gone => ProcessEnd(NOT_OUR_CHILD.to_owned()),
    }
}

async fn receive(control: &UnixStream) -> Said {
    let mut packet = vec![0; MAX_MESSAGE];
    let receive = || {
        // TRUNC makes the length that of the packet, even where the buffer is shorter.
        let (_, length) = rustix::net::recv(control, &mut packet[..], RecvFlags::TRUNC)?;
        Ok(length)
    };
    match control.async_io(Interest::READABLE, receive).await {
        // A VMM that is killed while data waits for it resets the connection: it is just as gone.
        Ok(0) | Err(_) => Said::Closed,
        Ok(length) => parse(packet.get(..length)),
    }
}

/// The last event of a VMM that has ended, if it has written one.
pub(crate) fn read_outcome(path: &Path) -> Said {
    let limit = u64::try_from(MAX_MESSAGE).unwrap_or(u64::MAX);
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut text));
    match read {
        Ok(1..) => parse(Some(&text)),
        Ok(0) | Err(_) => Said::Closed,
    }
}

/// `None` is a packet longer than any message.
fn parse(packet: Option<&[u8]>) -> Said {
    let Some(packet) = packet else {
        return Said::Nonsense(format!("a message of more than {MAX_MESSAGE} bytes"));
    };
    match serde_json::from_slice(packet) {
        Ok(event) => Said::Event(event),
        Err(error) => Said::Nonsense(format!("a malformed message: {error}")),
    }
}

#[cfg(test)]
mod tests;
