//! The real launcher: one `enclave-vmm` process per enclave.
//!
//! The process gets nothing but its end of a `SOCK_SEQPACKET` pair as standard input, an empty environment and the
//! enclave's directory as working directory. Everything else it will ever hold comes as descriptors with the
//! specification. What it prints on standard error goes to the daemon's log.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use api::vmm::MAX_MESSAGE;
use api::{ErrorCode, Failure};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::launcher::{Instance, Launch, Launcher, ProcessEnd, Said};
use crate::{leftovers, vmm_log};

/// Starts `enclave-vmm` processes.
#[derive(Debug)]
pub struct VmmLauncher {
    program: PathBuf,
}

impl VmmLauncher {
    /// A launcher of `program`, an absolute path.
    pub fn new(program: PathBuf) -> Self {
        Self { program }
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
        let process = self.spawn(vmm_end, &launch.directory).map_err(|error| {
            let context = format!("Starting the VMM {} failed", self.program.display());
            Failure::caused_by(ErrorCode::ProcessSpawn, &context, &error)
        })?;
        let mut process = VmmProcess::watch(process, control)?;
        if let Some(stderr) = process.child.stderr.take() {
            tokio::spawn(vmm_log::forward(stderr, launch.spec.enclave_id.clone()));
        }
        leftovers::note_process(&launch.directory, process.process_id).map_err(|error| {
            let directory = launch.directory.display();
            let context = format!("The VMM's process id cannot be written down in {directory}");
            Failure::caused_by(ErrorCode::FileOperation, &context, &error)
        })?;
        send(process.control.as_fd(), &launch).map_err(|error| {
            let context = "The VMM could not be given its specification";
            Failure::caused_by(ErrorCode::EnclaveBootFailure, context, &error)
        })?;
        Ok(process)
    }
}

impl VmmLauncher {
    fn spawn(&self, vmm_end: OwnedFd, directory: &Path) -> io::Result<Child> {
        Command::new(&self.program)
            .env_clear()
            .current_dir(directory)
            // Ctrl-C in the daemon's terminal is for the daemon, which ends its enclaves in order.
            .process_group(0)
            .stdin(Stdio::from(vmm_end))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
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

/// Sends the specification with its descriptors in one packet.
fn send(control: BorrowedFd<'_>, launch: &Launch) -> io::Result<()> {
    let message = serde_json::to_vec(&launch.spec)?;
    let descriptors = launch.descriptors.in_order();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(descriptors.len()))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let packet = [io::IoSlice::new(&message)];
    rustix::net::sendmsg(control, &packet, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A running `enclave-vmm`.
#[derive(Debug)]
pub struct VmmProcess {
    child: Child,
    process_id: u32,
    /// A packet socket. The type is that of a stream, but nothing is asked of it that differs.
    control: UnixStream,
}

impl VmmProcess {
    fn watch(child: Child, control: OwnedFd) -> Result<Self, Failure> {
        let process_id = child.id().unwrap_or_default();
        let control = UnixStream::from_std(control.into()).map_err(|error| {
            Failure::caused_by(ErrorCode::Epoll, "Watching the VMM's socket failed", &error)
        })?;
        Ok(Self {
            child,
            process_id,
            control,
        })
    }
}

impl Instance for VmmProcess {
    fn process_id(&self) -> u32 {
        self.process_id
    }

    async fn next_event(&mut self) -> Said {
        let mut packet = vec![0; MAX_MESSAGE];
        let receive = || {
            // TRUNC makes the length that of the packet, even where the buffer is shorter.
            let (_, length) = rustix::net::recv(&self.control, &mut packet[..], RecvFlags::TRUNC)?;
            Ok(length)
        };
        match self.control.async_io(Interest::READABLE, receive).await {
            // A VMM that is killed while data waits for it resets the connection: it is just as gone.
            Ok(0) | Err(_) => Said::Closed,
            Ok(length) => parse(packet.get(..length)),
        }
    }

    fn kill(&mut self) {
        // Fails only if the process is reaped already.
        let _ = self.child.start_kill();
    }

    async fn wait(&mut self) -> ProcessEnd {
        match self.child.wait().await {
            Ok(status) => ProcessEnd(status.to_string()),
            Err(error) => ProcessEnd(format!("its end could not be seen: {error}")),
        }
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
