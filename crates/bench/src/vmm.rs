//! Starts a VMM as the daemon does, so that the VMM alone is measured.
//!
//! The launch message lies in the socket before the VMM is executed: it never waits for this program.

use std::{
    fs::{self, File},
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use api::{
    Measurements,
    sandbox::Layer,
    vmm::{Event, LaunchSpec, MAX_MESSAGE, MemoryFile, VsockBackend},
};
use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
        SocketFlags, SocketType, bind, recv, sendmsg, socket_with, socketpair,
    },
};

use crate::error::{Error, at, system};

/// Bytes in a hugepage of guest memory.
const PAGE_SIZE: u64 = 2 << 20;

/// What to start.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The VMM.
    pub program: &'a Path,
    /// The EIF.
    pub eif: &'a Path,
    /// Guest memory in bytes.
    pub memory: u64,
    /// A directory for sockets.
    pub directory: &'a Path,
    /// The guest's vsock address.
    pub guest_cid: u32,
    /// What carries its vsock.
    pub vsock: VsockBackend,
    /// The CPU that its vCPU has.
    pub cpu: u32,
}

/// A VMM process, killed when this is dropped.
#[derive(Debug)]
pub struct Vmm {
    process: Child,
    control: OwnedFd,
}

impl Vmm {
    /// Starts an enclave of one vCPU without a console.
    pub fn launch(launch: Launch<'_>) -> Result<Self, Error> {
        let (control, vmm_end) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(system("create a socket pair"))?;
        send(&control, launch)?;
        let process = Command::new(launch.program)
            // Who listens in the directory is root, and nobody gives the sockets to another user.
            .args(["--allow-missing", Layer::OwnUser.name()])
            .env_clear()
            .current_dir(launch.directory)
            .stdin(Stdio::from(vmm_end))
            .stdout(Stdio::null())
            // Whatever ends a VMM is also its last event.
            .stderr(Stdio::null())
            .spawn()
            .map_err(at("run", launch.program))?;
        Ok(Self { process, control })
    }

    /// What the VMM says it has measured.
    pub fn measured(&self) -> Result<Measurements, Error> {
        match self.event()? {
            Some(Event::Measured(measurements)) => Ok(measurements),
            Some(Event::Failed(failure)) => Err(Error::Vmm(failure.to_string())),
            Some(other) => Err(Error::Vmm(format!("its first event is {other:?}"))),
            None => Err(Error::Vmm("it has reported nothing".to_owned())),
        }
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The next event, if it has been sent.
    fn event(&self) -> Result<Option<Event>, Error> {
        let mut message = vec![0; MAX_MESSAGE];
        match recv(&self.control, &mut message[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Error::Vmm("it ended without a word".to_owned())),
            Ok((length, _)) => serde_json::from_slice(message.get(..length).unwrap_or_default())
                .map(Some)
                .map_err(|error| Error::Vmm(format!("its event cannot be read: {error}"))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(system("receive an event")(error)),
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends the launch message with the descriptors that [`LaunchSpec`] names.
fn send(control: &OwnedFd, launch: Launch<'_>) -> Result<(), Error> {
    let spec = LaunchSpec {
        enclave_id: "i-0000000000000000-enc0000000000000000".into(),
        guest_cid: launch.guest_cid,
        cpu_ids: vec![launch.cpu],
        threads_per_core: 1,
        memory: vec![MemoryFile {
            size: launch.memory,
            page_size: PAGE_SIZE,
            node: None,
        }],
        vsock: launch.vsock,
        debug_mode: false,
        isolated: false,
    };
    let message = serde_json::to_vec(&spec).map_err(system("write the launch message"))?;
    let kvm = device("/dev/kvm")?;
    let eif = File::open(launch.eif).map_err(at("open", launch.eif))?;
    let vsock = match launch.vsock {
        VsockBackend::Unix => OwnedFd::from(listen(launch.directory)?),
        VsockBackend::Kernel => device("/dev/vhost-vsock")?.into(),
    };
    let nsm = nsm_listener(launch.directory)?;
    let outcome = launch.directory.join("outcome");
    let outcome = File::create(&outcome).map_err(at("create", &outcome))?;
    let memory = guest_memory(launch.memory)?;
    let descriptors = [
        kvm.as_fd(),
        eif.as_fd(),
        vsock.as_fd(),
        nsm.as_fd(),
        outcome.as_fd(),
        memory.as_fd(),
    ];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(6))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    // The space is for as many descriptors as there are.
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(
        control,
        &[IoSlice::new(&message)],
        &mut ancillary,
        SendFlags::empty(),
    )
    .map_err(system("send the launch message"))?;
    Ok(())
}

fn device(path: &str) -> Result<File, Error> {
    let path = Path::new(path);
    let mut options = File::options();
    options.read(true).write(true);
    options.open(path).map_err(at("open", path))
}

fn listen(directory: &Path) -> Result<UnixListener, Error> {
    let path = directory.join("vsock.sock");
    // Of the run before this one, if there was one.
    let _ = fs::remove_file(&path);
    UnixListener::bind(&path).map_err(at("listen at", &path))
}

/// A listener to which nobody connects: whatever the guest asks of its NSM waits.
fn nsm_listener(directory: &Path) -> Result<OwnedFd, Error> {
    let path = directory.join("nsm.sock");
    let _ = fs::remove_file(&path);
    let bound = || {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        rustix::net::listen(&socket, 1)?;
        Ok(socket)
    };
    bound().map_err(system::<Errno>("listen for a daemon"))
}

fn guest_memory(size: u64) -> Result<OwnedFd, Error> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let file = memfd_create("guest-memory", flags).map_err(system("create guest memory"))?;
    ftruncate(&file, size).map_err(system("size guest memory"))?;
    Ok(file)
}
