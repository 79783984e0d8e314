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
//! ```

use std::fs::{self, File};
use std::io;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::Command;

use rustix::fs::{CWD, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit};

use super::break_out::tell;

/// Tries everything and tells each result.
pub(crate) fn try_everything<'a>(
    orders: impl Iterator<Item = &'a str>,
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
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    try_own_directory(found)?;
    try_privileges(found)?;
    found("that was all")
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
    let attempts: [(&str, &str, Result<(), Errno>); 9] = [
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
