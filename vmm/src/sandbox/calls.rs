//! The system calls of each class of threads.
//!
//! A rule has a condition where the call could reach further than its class must: which ioctls, which sockets, no memory that can
//! be executed. Calls that only concern what the process holds already have none.

use std::fmt;

use libc::c_long;

use super::Class;
use super::ioctls;

/// A call that may be made. Several rules for one call are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name in `libc`, or that of the ioctl.
    pub name: &'static str,
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

/// `any!(SYS_read)`
macro_rules! any {
    ($name:ident) => {
        Rule {
            name: stringify!($name),
            call: libc::$name,
            only: Only::Any,
        }
    };
}

/// `equal!(SYS_socket, 0, AF_UNIX)`
macro_rules! equal {
    ($name:ident, $argument:literal, $value:expr) => {
        Rule {
            name: stringify!($name),
            call: libc::$name,
            only: Only::Equal($argument, $value),
        }
    };
}

/// `ioctl!(KVM_RUN)`
macro_rules! ioctl {
    ($request:ident) => {
        Rule {
            name: stringify!($request),
            call: libc::SYS_ioctl,
            only: Only::Equal(1, ioctls::$request),
        }
    };
}

/// Memory, but none that can be executed: `not_executable!(SYS_mmap)`
macro_rules! not_executable {
    ($name:ident) => {
        Rule {
            name: stringify!($name),
            call: libc::$name,
            only: Only::Without(2, libc::PROT_EXEC.cast_unsigned()),
        }
    };
}

/// Of every class: memory, locks, what is open, and the thread's own end.
const EVERY: &[Rule] = &[
    any!(SYS_read),
    any!(SYS_write),
    any!(SYS_close),
    // Whether a descriptor is open: the standard library's own check.
    equal!(SYS_fcntl, 1, libc::F_GETFD.cast_unsigned()),
    any!(SYS_futex),
    not_executable!(SYS_mmap),
    not_executable!(SYS_mprotect),
    any!(SYS_munmap),
    // How the allocator makes a large table larger.
    any!(SYS_mremap),
    any!(SYS_madvise),
    any!(SYS_brk),
    any!(SYS_getrandom),
    any!(SYS_rt_sigprocmask),
    any!(SYS_rt_sigreturn),
    any!(SYS_sigaltstack),
    any!(SYS_gettid),
    any!(SYS_epoll_ctl),
    // Where the parent's clock cannot be read without one.
    any!(SYS_clock_gettime),
    // Of a call that a signal has interrupted.
    any!(SYS_restart_syscall),
    // Of a lock that somebody else is about to leave.
    any!(SYS_sched_yield),
    // Of a fault or an abort, which is to be seen as one: the default action for its signal, and the signal itself, as `of` says.
    equal!(SYS_rt_sigaction, 0, libc::SIGSEGV.cast_unsigned()),
    equal!(SYS_rt_sigaction, 0, libc::SIGBUS.cast_unsigned()),
    equal!(SYS_rt_sigaction, 0, libc::SIGABRT.cast_unsigned()),
    any!(SYS_getpid),
    any!(SYS_exit),
    any!(SYS_exit_group),
];

/// The guest runs, and its drivers activate and reset devices.
const VCPU: &[Rule] = &[
    ioctl!(KVM_RUN),
    // Whether it has halted for ever.
    ioctl!(KVM_GET_REGS),
    ioctl!(KVM_GET_MP_STATE),
    ioctl!(KVM_GET_VCPU_EVENTS),
    ioctl!(VHOST_SET_VRING_NUM),
    ioctl!(VHOST_SET_VRING_BASE),
    ioctl!(VHOST_SET_VRING_ADDR),
    ioctl!(VHOST_SET_VRING_KICK),
    ioctl!(VHOST_SET_VRING_CALL),
    ioctl!(VHOST_VSOCK_SET_RUNNING),
    any!(SYS_eventfd2),
    any!(SYS_timerfd_create),
    // A device that cannot be activated says so.
    ioctl!(KVM_IRQ_LINE),
];

/// What serves a device: waits, and interrupts the guest.
const DEVICE: &[Rule] = &[
    any!(SYS_epoll_wait),
    any!(SYS_timerfd_settime),
    ioctl!(KVM_IRQ_LINE),
];

/// The vsock device is served: with the kernel's vsock, the kernel moves the bytes.
const VSOCK: &[Rule] = &[
    // A device that fails is stopped here.
    ioctl!(VHOST_VSOCK_SET_RUNNING),
];

/// Bytes through sockets that are there, or that come to a listener.
const SOCKETS: &[Rule] = &[
    any!(SYS_accept4),
    any!(SYS_recvfrom),
    any!(SYS_recvmsg),
    any!(SYS_sendto),
    any!(SYS_sendmsg),
    any!(SYS_shutdown),
];

/// The guest's connections become connections to Unix sockets. Which can be reached is a matter of the process's user.
const UNIX_SOCKETS: &[Rule] = &[
    equal!(SYS_socket, 0, libc::AF_UNIX.cast_unsigned()),
    any!(SYS_connect),
];

/// The image is read, the machine made, its threads started.
const BOOT: &[Rule] = &[
    any!(SYS_pread64),
    any!(SYS_statx),
    // Limits on itself: lower ones, since a process without privileges cannot raise them.
    equal!(SYS_prlimit64, 0, 0),
    // Of what comes after guest memory.
    equal!(
        SYS_mlockall,
        0,
        (libc::MCL_FUTURE | libc::MCL_ONFAULT).cast_unsigned()
    ),
    // Guest memory on one node.
    equal!(SYS_mbind, 2, libc::MPOL_BIND.cast_unsigned()),
    any!(SYS_epoll_create1),
    equal!(SYS_fcntl, 1, libc::F_DUPFD_CLOEXEC.cast_unsigned()),
    ioctl!(FIONBIO),
    ioctl!(KVM_CREATE_VM),
    ioctl!(KVM_CHECK_EXTENSION),
    ioctl!(KVM_GET_VCPU_MMAP_SIZE),
    ioctl!(KVM_GET_SUPPORTED_CPUID),
    ioctl!(KVM_CREATE_VCPU),
    ioctl!(KVM_SET_USER_MEMORY_REGION),
    ioctl!(KVM_SET_TSS_ADDR),
    ioctl!(KVM_CREATE_IRQCHIP),
    ioctl!(KVM_CREATE_PIT2),
    ioctl!(KVM_X86_SET_MSR_FILTER),
    ioctl!(KVM_IRQFD),
    ioctl!(KVM_IOEVENTFD),
    ioctl!(KVM_SET_REGS),
    ioctl!(KVM_GET_SREGS),
    ioctl!(KVM_SET_SREGS),
    ioctl!(KVM_SET_MSRS),
    ioctl!(KVM_SET_CPUID2),
    ioctl!(KVM_SET_TSC_KHZ),
    ioctl!(VHOST_GET_FEATURES),
    ioctl!(VHOST_SET_FEATURES),
    ioctl!(VHOST_SET_OWNER),
    ioctl!(VHOST_SET_MEM_TABLE),
    ioctl!(VHOST_VSOCK_SET_GUEST_CID),
    any!(SYS_rt_sigaction),
    any!(SYS_clone3),
    // Where the kernel does not know clone3.
    any!(SYS_clone),
    any!(SYS_set_robust_list),
    any!(SYS_rseq),
    any!(SYS_sched_getaffinity),
    any!(SYS_sched_setaffinity),
    equal!(SYS_prctl, 0, libc::PR_SET_NAME.cast_unsigned()),
    // The filters of the other classes.
    equal!(SYS_prctl, 0, libc::PR_SET_NO_NEW_PRIVS.cast_unsigned()),
    equal!(SYS_seccomp, 0, libc::SECCOMP_SET_MODE_FILTER),
];

/// A list, with the name that [`table`] gives it.
type Part = (&'static str, &'static [Rule]);

const PART_EVERY: Part = ("every", EVERY);
const PART_VCPU: Part = ("vcpu", VCPU);
const PART_DEVICE: Part = ("device", DEVICE);
const PART_VSOCK: Part = ("vsock", VSOCK);
const PART_SOCKETS: Part = ("sockets", SOCKETS);
const PART_UNIX_SOCKETS: Part = ("unix-sockets", UNIX_SOCKETS);
const PART_BOOT: Part = ("boot", BOOT);

/// Boot has them all: filters add up.
const PARTS: &[Part] = &[
    PART_EVERY,
    PART_VCPU,
    PART_DEVICE,
    PART_VSOCK,
    PART_SOCKETS,
    PART_UNIX_SOCKETS,
    PART_BOOT,
];

/// Which lists a class has.
fn parts(class: Class) -> &'static [Part] {
    match class {
        Class::Boot => PARTS,
        Class::Vcpu => &[PART_EVERY, PART_VCPU],
        Class::Vsock { unix_sockets: true } => &[
            PART_EVERY,
            PART_DEVICE,
            PART_VSOCK,
            PART_SOCKETS,
            PART_UNIX_SOCKETS,
        ],
        Class::Vsock { unix_sockets: false } => &[PART_EVERY, PART_DEVICE, PART_VSOCK],
        Class::Devices => &[PART_EVERY, PART_DEVICE, PART_SOCKETS],
    }
}

/// All rules of a class.
pub fn of(class: Class) -> Vec<Rule> {
    let mut rules: Vec<Rule> = parts(class)
        .iter()
        .flat_map(|(_, rules)| *rules)
        .copied()
        .collect();
    // To threads of this process: vCPUs are interrupted by a signal.
    rules.push(equal!(SYS_tgkill, 0, std::process::id()));
    rules
}

/// All of it, in lines: for each class `class CLASS PART...`, for each rule `PART CALL NUMBER CONDITION`. A condition is `any`, or
/// `ARGUMENT=VALUE`, or `ARGUMENT!BITS` for bits that must not be set; of the one that is different in each process, it is
/// `own-process`.
pub fn table() -> String {
    let classes = [
        ("boot", Class::Boot),
        ("vcpu", Class::Vcpu),
        ("vsock", Class::Vsock { unix_sockets: false }),
        ("vsock-unix", Class::Vsock { unix_sockets: true }),
        ("devices", Class::Devices),
    ];
    let classes = classes.map(|(name, class)| {
        let parts: Vec<_> = parts(class).iter().map(|(part, _)| *part).collect();
        format!("class {name} {}\n", parts.join(" "))
    });
    let rules = PARTS.iter().flat_map(|(part, rules)| {
        let line = move |rule: &Rule| format!("{part} {} {} {}\n", rule.name, rule.call, rule.only);
        rules.iter().map(line)
    });
    let own = format!("every SYS_tgkill {} own-process\n", libc::SYS_tgkill);
    classes.into_iter().chain(rules).chain([own]).collect()
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Equal(argument, value) => write!(f, "{argument}={value:#x}"),
            Self::Without(argument, bits) => write!(f, "{argument}!{bits:#x}"),
        }
    }
}
