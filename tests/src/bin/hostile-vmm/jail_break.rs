//! What a guest would try that commands its VMM's process where that stays: to reach what is outside, with every system call there
//! is. No filter stops it, so that what stops it is the jail.
//!
//! Each line of orders is one word and whom it concerns:
//!
//! ```text
//! file PATH       to be opened, listed, executed, connected to: a path of the machine's
//! process PID     to be signalled, robbed of a descriptor
//! abstract NAME   to be connected to: a Unix socket without a place in a file system
//! tcp ADDRESS     to be connected to
//! vsock CID PORT  to be connected to
//! port PORT       to be listened on: of the machine's vsock
//! ```
//!
//! Then it becomes root of a namespace of users of its own, if it can, and tries all of that again.

use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::inotify::{CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

use super::break_out::tell;

/// Tries everything, `descriptors` of its own among it, and tells each result.
pub(crate) fn try_everything<'a>(
    orders: impl Iterator<Item = &'a str> + Clone,
    descriptors: &[OwnedFd],
    found: impl Fn(&str) -> io::Result<()> + Copy,
) -> io::Result<()> {
    try_outside(orders.clone(), descriptors, found)?;
    try_privileges(found)?;
    let users = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET);
    tell(
        found,
        "make",
        "a namespace of users",
        users.map_err(io::Error::from),
    )?;
    try_outside(orders, descriptors, found)?;
    try_as_root_of_a_namespace(found)?;
    found("that was all")
}

fn try_outside<'a>(
    orders: impl Iterator<Item = &'a str>,
    descriptors: &[OwnedFd],
    found: impl Fn(&str) -> io::Result<()> + Copy,
) -> io::Result<()> {
    for order in orders {
        let (kind, whom) = order.split_once(' ').unwrap_or((order, ""));
        match kind {
            "file" => try_file(whom, found)?,
            "process" => try_process(whom, found)?,
            "abstract" => {
                let address = SocketAddr::from_abstract_name(whom)?;
                tell(
                    found,
                    "connect",
                    format!("@{whom}"),
                    UnixStream::connect_addr(&address),
                )?;
            }
            "tcp" => tell(found, "connect", whom, TcpStream::connect(whom))?,
            "vsock" => tell(found, "connect", order, connect_vsock(whom))?,
            "port" => {
                let port = whom.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
                let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port);
                tell(found, "listen", order, listener)?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    for (number, descriptor) in descriptors.iter().enumerate() {
        try_descriptor(number, descriptor, found)?;
    }
    try_own_directory(found)
}

fn connect_vsock(address: &str) -> io::Result<VsockStream> {
    let mut numbers = address.split(' ').map(str::parse);
    let mut number = || {
        numbers
            .next()
            .and_then(Result::ok)
            .ok_or(io::ErrorKind::InvalidInput)
    };
    VsockStream::connect_with_cid_port(number()?, number()?)
}

/// Whether it leads out.
fn try_descriptor(
    number: usize,
    descriptor: &OwnedFd,
    found: impl Fn(&str) -> io::Result<()> + Copy,
) -> io::Result<()> {
    let directory = rustix::process::fchdir(descriptor);
    let above = rustix::fs::openat(descriptor, "..", OFlags::PATH, Mode::empty());
    let file = rustix::fs::openat(descriptor, "../etc/shadow", OFlags::RDONLY, Mode::empty());
    let namespace = setns(descriptor, CloneFlags::empty());
    tell(found, "go to", number, directory.map_err(io::Error::from))?;
    tell(found, "go above", number, above.map_err(io::Error::from))?;
    tell(found, "open a file by", number, file.map_err(io::Error::from))?;
    tell(found, "enter", number, namespace.map_err(io::Error::from))
}

/// Mounts are those of its own namespace now: what matters is what shows in them.
fn try_as_root_of_a_namespace(found: impl Fn(&str) -> io::Result<()> + Copy) -> io::Result<()> {
    let mount = |kind: &str| rustix::mount::mount(kind, "/", kind, MountFlags::empty(), None);
    let attempts: [(&str, &str, Result<(), Errno>); 6] = [
        (
            "remount as root of a namespace",
            "/",
            rustix::mount::mount_remount("/", MountFlags::BIND, ""),
        ),
        (
            "unmount as root of a namespace",
            "/",
            rustix::mount::unmount("/", UnmountFlags::DETACH),
        ),
        ("mount as root of a namespace", "proc", mount("proc")),
        ("mount as root of a namespace", "sysfs", mount("sysfs")),
        ("mount as root of a namespace", "devtmpfs", mount("devtmpfs")),
        (
            "run first as root of a namespace",
            "itself",
            rustix::process::setpriority_process(None, -20),
        ),
    ];
    for (what, whom, outcome) in attempts {
        tell(found, what, whom, outcome.map_err(io::Error::from))?;
    }
    Ok(())
}

fn try_file(path: &str, found: impl Fn(&str) -> io::Result<()> + Copy) -> io::Result<()> {
    // Beside the path itself: from above the root, if there is something above it.
    for path in [path.to_owned(), format!("{}{path}", "/..".repeat(8))] {
        tell(found, "read", &path, File::open(&path))?;
        tell(found, "list", &path, fs::read_dir(&path))?;
        tell(found, "connect", &path, UnixStream::connect(&path))?;
    }
    tell(found, "execute", path, Command::new(path).spawn())
}

fn try_process(number: &str, found: impl Fn(&str) -> io::Result<()> + Copy) -> io::Result<()> {
    let process = number.parse().ok().and_then(Pid::from_raw);
    let process = process.ok_or(io::ErrorKind::InvalidInput)?;
    let signalled = rustix::process::test_kill_process(process);
    tell(found, "signal", number, signalled.map_err(io::Error::from))?;
    let robbed = rustix::process::pidfd_open(process, PidfdFlags::empty())
        .and_then(|process| rustix::process::pidfd_getfd(process, 0, PidfdGetfdFlags::empty()));
    tell(found, "rob", number, robbed.map_err(io::Error::from))
}

/// The one directory that there is.
fn try_own_directory(found: impl Fn(&str) -> io::Result<()> + Copy) -> io::Result<()> {
    tell(found, "list", "/", fs::read_dir("/"))?;
    let watched = rustix::fs::inotify::init(CreateFlags::CLOEXEC)
        .and_then(|watch| rustix::fs::inotify::add_watch(&watch, "/", WatchFlags::CREATE));
    tell(found, "watch", "/", watched.map_err(io::Error::from))?;
    tell(found, "make", "a file", File::create("/file"))?;
    tell(found, "make", "a listener", UnixListener::bind("/vsock.sock_99"))?;
    tell(found, "remove", "a socket", fs::remove_file("/vsock.sock"))?;
    tell(
        found,
        "replace",
        "the note",
        fs::rename("/vsock.sock", "/enclave.json"),
    )?;
    for name in ["/pcrs.json", "/enclave.json", "/outcome", "/log.pipe"] {
        tell(found, "read", name, File::open(name))?;
        tell(found, "write", name, File::options().append(true).open(name))?;
    }
    tell(found, "connect", "/nsm.sock", UnixStream::connect("/nsm.sock"))
}

/// What only root may do.
fn try_privileges(found: impl Fn(&str) -> io::Result<()> + Copy) -> io::Result<()> {
    let attempts: [(&str, &str, Result<(), Errno>); 10] = [
        (
            "mount",
            "proc",
            rustix::mount::mount("proc", "/", "proc", MountFlags::empty(), None),
        ),
        (
            "remount",
            "/",
            rustix::mount::mount_remount("/", MountFlags::BIND, ""),
        ),
        ("unmount", "/", rustix::mount::unmount("/", UnmountFlags::DETACH)),
        ("change root", "..", rustix::process::chroot("..")),
        (
            "make",
            "a device",
            rustix::fs::mknodat(CWD, "/device", FileType::BlockDevice, Mode::RUSR, 1),
        ),
        ("become user", "0", rustix::thread::set_thread_uid(Uid::ROOT)),
        ("become group", "0", rustix::thread::set_thread_gid(Gid::ROOT)),
        ("name", "the machine", rustix::system::sethostname(b"taken")),
        ("dump", "core", dump_core()),
        ("run first", "", rustix::process::setpriority_process(None, -20)),
    ];
    for (what, whom, outcome) in attempts {
        tell(found, what, whom, outcome.map_err(io::Error::from))?;
    }
    Ok(())
}

fn dump_core() -> Result<(), Errno> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    rustix::process::setrlimit(Resource::Core, unlimited)
}
