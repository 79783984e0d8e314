//! The system calls for which rustix has no safe form: signal masks, `fork` and vsock addresses.
#![expect(unsafe_code, reason = "libc calls; each is a few lines with its own argument")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::AddressFamily;
use rustix::process::Pid;

/// Blocks every signal that can be blocked, for this process and those it forks.
pub(crate) fn block_signals() -> io::Result<()> {
    change_signal_mask(libc::SIG_BLOCK)
}

/// Undoes [`block_signals`].
pub(crate) fn unblock_signals() -> io::Result<()> {
    change_signal_mask(libc::SIG_UNBLOCK)
}

fn change_signal_mask(how: libc::c_int) -> io::Result<()> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set that it is given a valid pointer to.
    let filled = unsafe { libc::sigfillset(all.as_mut_ptr()) };
    check(filled)?;
    // SAFETY: `all` was initialised above and outlives the call; the old mask is not asked for.
    let changed = unsafe { libc::sigprocmask(how, all.as_ptr(), std::ptr::null_mut()) };
    check(changed)
}

/// Which of the two processes after a [`fork`] this is.
#[derive(Debug)]
pub(crate) enum Fork {
    /// The old one, with the new one's process id.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Duplicates the process.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: init has one thread, so the child inherits no lock that another thread holds and may go on as the parent.
    let pid = unsafe { libc::fork() };
    check(pid)?;
    Ok(Pid::from_raw(pid).map_or(Fork::Child, Fork::Parent))
}

/// Connects a vsock socket to `port` of the machine `cid`, giving the other side `seconds` to answer.
///
/// The kernel's own limit is two seconds, which a busy parent can exceed.
pub(crate) fn connect_vsock(socket: impl AsFd, cid: u32, port: u32, seconds: i64) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    let limit = libc::timeval {
        tv_sec: seconds,
        tv_usec: 0,
    };
    // SAFETY: the pointer and length describe `limit`, which outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket,
            libc::AF_VSOCK,
            SO_VM_SOCKETS_CONNECT_TIMEOUT,
            (&raw const limit).cast(),
            length_of::<libc::timeval>(),
        )
    };
    check(set)?;

    let address = libc::sockaddr_vm {
        svm_family: AddressFamily::VSOCK.as_raw(),
        svm_reserved1: 0,
        svm_port: port,
        svm_cid: cid,
        svm_zero: [0; 4],
    };
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let connected = unsafe {
        libc::connect(
            socket,
            (&raw const address).cast(),
            length_of::<libc::sockaddr_vm>(),
        )
    };
    check(connected)
}

/// From `linux/vm_sockets.h`: the variant that takes a `timeval` of the C library's own layout.
const SO_VM_SOCKETS_CONNECT_TIMEOUT: libc::c_int = 6;

#[expect(
    clippy::cast_possible_truncation,
    reason = "both callers pass structures of a few bytes"
)]
fn length_of<T>() -> libc::socklen_t {
    size_of::<T>() as libc::socklen_t
}

/// Turns the C library's "-1 and errno" into an error.
fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
