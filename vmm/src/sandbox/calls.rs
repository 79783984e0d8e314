//! The system calls of each class of threads.
//!
//! A rule has a condition where the call could reach further than its class must: which ioctls, which sockets, no memory that can
//! be executed. Calls that only concern what the process holds already have none.

use libc::c_long;

use super::Class;
use super::ioctls;

/// A call that may be made. Several rules for one call are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub call: c_long,
    /// What its arguments must be.
    pub only: Only,
}

/// What one argument, counted from 0, must be. All of them have 32 bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// Nothing: any arguments.
    Any,
    /// This value.
    Equal(u8, u32),
    /// A value with none of these bits.
    Without(u8, u32),
}

const fn any(call: c_long) -> Rule {
    Rule {
        call,
        only: Only::Any,
    }
}

const fn equal(call: c_long, argument: u8, value: u32) -> Rule {
    Rule {
        call,
        only: Only::Equal(argument, value),
    }
}

const fn ioctl(request: u32) -> Rule {
    equal(libc::SYS_ioctl, 1, request)
}

/// Memory, but none that can be executed.
const fn not_executable(call: c_long) -> Rule {
    Rule {
        call,
        only: Only::Without(2, libc::PROT_EXEC.cast_unsigned()),
    }
}

/// Of every class: memory, locks, what is open, and the thread's own end.
const EVERY: &[Rule] = &[
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_close),
    // Whether a descriptor is open: the standard library's own check.
    equal(libc::SYS_fcntl, 1, libc::F_GETFD.cast_unsigned()),
    any(libc::SYS_futex),
    not_executable(libc::SYS_mmap),
    not_executable(libc::SYS_mprotect),
    any(libc::SYS_munmap),
    // How the allocator makes a large table larger.
    any(libc::SYS_mremap),
    any(libc::SYS_madvise),
    any(libc::SYS_brk),
    any(libc::SYS_getrandom),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_gettid),
    any(libc::SYS_epoll_ctl),
    // Where the parent's clock cannot be read without one.
    any(libc::SYS_clock_gettime),
    // Of a call that a signal has interrupted.
    any(libc::SYS_restart_syscall),
    // Of a lock that somebody else is about to leave.
    any(libc::SYS_sched_yield),
    // Of a fault or an abort, which is to be seen as one: the default action for its signal, and the signal itself, as `of` says.
    equal(libc::SYS_rt_sigaction, 0, libc::SIGSEGV.cast_unsigned()),
    equal(libc::SYS_rt_sigaction, 0, libc::SIGBUS.cast_unsigned()),
    equal(libc::SYS_rt_sigaction, 0, libc::SIGABRT.cast_unsigned()),
    any(libc::SYS_getpid),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
];

/// The guest runs, and its drivers activate and reset devices.
const VCPU: &[Rule] = &[
    ioctl(ioctls::KVM_RUN),
    // Whether it has halted for ever.
    ioctl(ioctls::KVM_GET_REGS),
    ioctl(ioctls::KVM_GET_MP_STATE),
    ioctl(ioctls::KVM_GET_VCPU_EVENTS),
    ioctl(ioctls::VHOST_SET_VRING_NUM),
    ioctl(ioctls::VHOST_SET_VRING_BASE),
    ioctl(ioctls::VHOST_SET_VRING_ADDR),
    ioctl(ioctls::VHOST_SET_VRING_KICK),
    ioctl(ioctls::VHOST_SET_VRING_CALL),
    ioctl(ioctls::VHOST_VSOCK_SET_RUNNING),
    any(libc::SYS_eventfd2),
    any(libc::SYS_timerfd_create),
    // A device that cannot be activated says so.
    ioctl(ioctls::KVM_IRQ_LINE),
];

/// What serves a device: waits, and interrupts the guest.
const DEVICE: &[Rule] = &[
    any(libc::SYS_epoll_wait),
    any(libc::SYS_timerfd_settime),
    ioctl(ioctls::KVM_IRQ_LINE),
];

/// The vsock device is served: with the kernel's vsock, the kernel moves the bytes.
const VSOCK: &[Rule] = &[
    // A device that fails is stopped here.
    ioctl(ioctls::VHOST_VSOCK_SET_RUNNING),
];

/// Bytes through sockets that are there, or that come to a listener.
const SOCKETS: &[Rule] = &[
    any(libc::SYS_accept4),
    any(libc::SYS_recvfrom),
    any(libc::SYS_recvmsg),
    any(libc::SYS_sendto),
    any(libc::SYS_sendmsg),
    any(libc::SYS_shutdown),
];

/// The guest's connections become connections to Unix sockets. Which can be reached is a matter of the process's user.
const UNIX_SOCKETS: &[Rule] = &[
    equal(libc::SYS_socket, 0, libc::AF_UNIX.cast_unsigned()),
    any(libc::SYS_connect),
];

/// The image is read, the machine made, its threads started.
const BOOT: &[Rule] = &[
    any(libc::SYS_pread64),
    any(libc::SYS_newfstatat),
    any(libc::SYS_fstat),
    any(libc::SYS_statx),
    // Limits on itself: lower ones, since a process without privileges cannot raise them.
    equal(libc::SYS_prlimit64, 0, 0),
    // Guest memory on one node.
    equal(libc::SYS_mbind, 2, libc::MPOL_BIND.cast_unsigned()),
    any(libc::SYS_epoll_create1),
    equal(libc::SYS_fcntl, 1, libc::F_DUPFD_CLOEXEC.cast_unsigned()),
    ioctl(ioctls::FIONBIO),
    ioctl(ioctls::KVM_CREATE_VM),
    ioctl(ioctls::KVM_CHECK_EXTENSION),
    ioctl(ioctls::KVM_GET_VCPU_MMAP_SIZE),
    ioctl(ioctls::KVM_GET_SUPPORTED_CPUID),
    ioctl(ioctls::KVM_CREATE_VCPU),
    ioctl(ioctls::KVM_SET_USER_MEMORY_REGION),
    ioctl(ioctls::KVM_SET_TSS_ADDR),
    ioctl(ioctls::KVM_CREATE_IRQCHIP),
    ioctl(ioctls::KVM_CREATE_PIT2),
    ioctl(ioctls::KVM_IRQFD),
    ioctl(ioctls::KVM_IOEVENTFD),
    ioctl(ioctls::KVM_SET_REGS),
    ioctl(ioctls::KVM_GET_SREGS),
    ioctl(ioctls::KVM_SET_SREGS),
    ioctl(ioctls::KVM_SET_MSRS),
    ioctl(ioctls::KVM_SET_CPUID2),
    ioctl(ioctls::KVM_SET_TSC_KHZ),
    ioctl(ioctls::VHOST_GET_FEATURES),
    ioctl(ioctls::VHOST_SET_FEATURES),
    ioctl(ioctls::VHOST_SET_OWNER),
    ioctl(ioctls::VHOST_SET_MEM_TABLE),
    ioctl(ioctls::VHOST_VSOCK_SET_GUEST_CID),
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_clone3),
    // Where the kernel does not know clone3.
    any(libc::SYS_clone),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_rseq),
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_sched_setaffinity),
    equal(libc::SYS_prctl, 0, libc::PR_SET_NAME.cast_unsigned()),
    // The filters of the other classes.
    equal(libc::SYS_prctl, 0, libc::PR_SET_NO_NEW_PRIVS.cast_unsigned()),
    equal(libc::SYS_seccomp, 0, libc::SECCOMP_SET_MODE_FILTER),
];

/// All rules of a class.
pub fn of(class: Class) -> Vec<Rule> {
    let parts: &[&[Rule]] = match class {
        Class::Boot => &[EVERY, VCPU, DEVICE, VSOCK, SOCKETS, UNIX_SOCKETS, BOOT],
        Class::Vcpu => &[EVERY, VCPU],
        Class::Vsock { unix_sockets: true } => &[EVERY, DEVICE, VSOCK, SOCKETS, UNIX_SOCKETS],
        Class::Vsock { unix_sockets: false } => &[EVERY, DEVICE, VSOCK],
        Class::Devices => &[EVERY, DEVICE, SOCKETS],
    };
    let mut rules = parts.concat();
    // To threads of this process: vCPUs are interrupted by a signal.
    rules.push(equal(libc::SYS_tgkill, 0, std::process::id()));
    rules
}
