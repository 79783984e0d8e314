//! What whoever has taken over a VMM would try, each as one system call that no thread of a VMM has to make.
//!
//! [`Attempt::otherwise`] says what the call gets where the filter lets it through and the other layers are alone. That an attempt is
//! refused for the right reason is why this is said exactly: a call with wrong arguments would be refused as well.

use end_to_end_tests::injection::{Argument, Outcome};
use nix::libc::*;
use rustix::io::Errno;

/// Whom it concerns.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    /// A file with a key of the daemon's.
    pub(crate) key: String,
    /// The daemon's process.
    pub(crate) daemon: u32,
    /// Process, directory and CID of another enclave.
    pub(crate) victim: u32,
    pub(crate) victims_directory: String,
    pub(crate) victims_cid: u32,
    /// Descriptors of the VMM's own.
    pub(crate) own: Own,
}

/// Descriptors of a VMM, by what they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    pub(crate) kvm: u32,
    pub(crate) machine: u32,
    pub(crate) vhost: Option<u32>,
    pub(crate) outcome: u32,
}

/// What a call gets that no filter refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// This error.
    Refused(Errno),
    /// It is made, and why that is not the end of the world.
    Made(&'static str),
    /// The parent's kernel does not know the call.
    Unknown,
    /// It is not tried: it would be the end of the VMM, or of the test.
    Untried(&'static str),
}

impl Otherwise {
    pub(crate) fn is(self, outcome: Outcome) -> bool {
        match self {
            Self::Refused(error) => outcome == Outcome::Refused(error),
            Self::Made(_) => matches!(outcome, Outcome::Made(_)),
            Self::Unknown => outcome == Outcome::Refused(Errno::NOSYS),
            Self::Untried(_) => false,
        }
    }
}

/// One system call.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) what: &'static str,
    pub(crate) call: i64,
    pub(crate) arguments: Vec<Argument>,
    pub(crate) otherwise: Otherwise,
    /// Whether it is the work of a VMM that still boots.
    pub(crate) is_of_boot: bool,
}

/// What is told of the size of a structure.
const SIZE_OF_OPEN_HOW: u64 = 24;

/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITIES: u32 = 0x2008_0522;

/// `open` of the x32 ABI (`__X32_SYSCALL_BIT`).
const X32_OPEN: i64 = 0x4000_0000 | SYS_open;

const IOPRIO_REAL_TIME: u32 = 1 << 13;

const KVM_CREATE_VM: u64 = 0xae01;
const KVM_SET_USER_MEMORY_REGION: u64 = 0x4020_ae46;
const VHOST_SET_MEM_TABLE: u64 = 0x4008_af03;
const VHOST_VSOCK_SET_GUEST_CID: u64 = 0x4008_af60;

const GIB: u64 = 1 << 30;

/// `attempt!("what"; CALL(arguments) => otherwise)`
macro_rules! attempt {
    ($what:literal; $call:ident($($argument:expr),*) => $otherwise:expr) => {
        Attempt {
            what: $what,
            call: $call,
            arguments: vec![$(Argument::from($argument)),*],
            otherwise: $otherwise,
            is_of_boot: false,
        }
    };
}

fn text(text: &str) -> Argument {
    Argument::text(text)
}

/// All of them.
pub(crate) fn attempts(targets: &Targets) -> Vec<Attempt> {
    let mut all = files(targets);
    all.extend(processes(targets));
    all.extend(privileges(targets));
    all.extend(kernel_interfaces());
    all.extend(sockets());
    all.extend(memory());
    all.extend(own_descriptors(targets));
    all.extend(the_machine());
    all
}

fn files(targets: &Targets) -> Vec<Attempt> {
    use Otherwise::{Made, Refused, Unknown};
    let Targets {
        key,
        victims_directory,
        ..
    } = targets;
    let how = || Argument::Bytes(vec![0; 24]);
    vec![
        attempt!("read the daemon's key"; SYS_openat(AT_FDCWD, text(key), O_RDONLY) => Refused(Errno::NOENT)),
        attempt!("list another enclave's directory"; SYS_openat(AT_FDCWD, text(victims_directory), O_DIRECTORY)
            => Refused(Errno::NOENT)),
        attempt!("read /etc/shadow"; SYS_open(text("/etc/shadow"), O_RDONLY) => Refused(Errno::NOENT)),
        attempt!("read /etc/shadow from above the root";
            SYS_openat2(AT_FDCWD, text("/../../../../etc/shadow"), how(), SIZE_OF_OPEN_HOW)
            => Refused(Errno::NOENT)),
        attempt!("read a file by a descriptor's directory"; SYS_openat(0, text("../etc/shadow"), O_RDONLY)
            => Refused(Errno::NOTDIR)),
        attempt!("read a file by its number";
            SYS_open_by_handle_at(AT_FDCWD, Argument::words(&[8, 1, 2, 0]), O_RDONLY)
            => Refused(Errno::PERM)),
        attempt!("read its own processes' memory by /proc"; SYS_openat(AT_FDCWD, text("/proc/self/mem"), O_RDWR)
            => Refused(Errno::NOENT)),
        attempt!("read the daemon's note on the enclave"; SYS_openat(AT_FDCWD, text("/enclave.json"), O_RDONLY)
            => Refused(Errno::ACCESS)),
        attempt!("change the daemon's registers of PCRs"; SYS_openat(AT_FDCWD, text("/pcrs.json"), O_WRONLY)
            => Refused(Errno::ACCESS)),
        attempt!("read a file by the numbers of another ABI"; X32_OPEN(text("/etc/shadow"), O_RDONLY)
            => Unknown),
        attempt!("make a file"; SYS_openat(AT_FDCWD, text("/file"), O_CREAT | O_WRONLY, 0o600)
            => Refused(Errno::ROFS)),
        attempt!("replace a socket"; SYS_unlinkat(AT_FDCWD, text("/nsm.sock"), 0) => Refused(Errno::ROFS)),
        attempt!("watch a directory"; SYS_inotify_init1(0)
            => Made("what it could watch is its own directory, which it may not even list")),
    ]
}

fn processes(targets: &Targets) -> Vec<Attempt> {
    use Otherwise::{Made, Refused, Untried};
    let Targets { daemon, victim, .. } = *targets;
    let place = || {
        Argument::Bytes(
            [0x40_0000_u64, 8]
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect(),
        )
    };
    vec![
        attempt!("read another VMM's memory"; SYS_process_vm_readv(victim, place(), 1, place(), 1, 0)
            => Refused(Errno::PERM)),
        attempt!("write the daemon's memory"; SYS_process_vm_writev(daemon, place(), 1, place(), 1, 0)
            => Refused(Errno::PERM)),
        attempt!("trace another VMM"; SYS_ptrace(PTRACE_SEIZE, victim, 0, 0) => Refused(Errno::PERM)),
        attempt!("kill another VMM"; SYS_kill(victim, SIGKILL) => Refused(Errno::PERM)),
        attempt!("kill the daemon"; SYS_tgkill(daemon, daemon, SIGKILL) => Refused(Errno::PERM)),
        attempt!("open another VMM's process"; SYS_pidfd_open(victim, 0)
            => Made("it learns that there is such a process, and can do nothing to it")),
        attempt!("change another VMM's limits";
            SYS_prlimit64(victim, RLIMIT_NOFILE, Argument::Bytes(vec![0; 16]), 0)
            => Refused(Errno::PERM)),
        attempt!("execute a program"; SYS_execve(text("/bin/sh"), 0, 0) => Refused(Errno::NOENT)),
        attempt!("execute what it has written itself";
            SYS_execveat(targets.own.outcome, text(""), 0, 0, AT_EMPTY_PATH)
            => Refused(Errno::ACCESS)),
        attempt!("start a process"; SYS_fork()
            => Untried("suites nsm and sandbox: it ends with the enclave, and there are 17 at most")),
        attempt!("start a process the old way"; SYS_clone(SIGCHLD, 0, 0, 0, 0) => Untried("likewise")),
    ]
    .into_iter()
    .map(|attempt| Attempt {
        is_of_boot: attempt.call == SYS_clone,
        ..attempt
    })
    .collect()
}

fn privileges(targets: &Targets) -> Vec<Attempt> {
    use Otherwise::{Made, Refused};
    let all_capabilities = || Argument::words(&[u32::MAX; 6]);
    vec![
        attempt!("become root"; SYS_setresuid(0, 0, 0) => Refused(Errno::PERM)),
        attempt!("join root's group"; SYS_setgroups(1, Argument::words(&[0])) => Refused(Errno::PERM)),
        attempt!("take capabilities"; SYS_capset(Argument::words(&[CAPABILITIES, 0]), all_capabilities())
            => Refused(Errno::PERM)),
        attempt!("be one that may be traced"; SYS_prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            => Made("it is its user's only process, and opens nobody else's memory by it")),
        attempt!("mount"; SYS_mount(text("proc"), text("/"), text("proc"), 0, 0) => Refused(Errno::PERM)),
        attempt!("make the root writable"; SYS_mount(text("/"), text("/"), text(""), MS_REMOUNT | MS_BIND, 0)
            => Refused(Errno::PERM)),
        attempt!("unmount the root"; SYS_umount2(text("/"), MNT_DETACH) => Refused(Errno::PERM)),
        attempt!("change the root"; SYS_chroot(text("..")) => Refused(Errno::PERM)),
        attempt!("leave for an older root"; SYS_pivot_root(text("/"), text("/")) => Refused(Errno::PERM)),
        attempt!("make a namespace of users"; SYS_unshare(CLONE_NEWUSER) => Refused(Errno::INVAL)),
        attempt!("make a namespace of networks"; SYS_unshare(CLONE_NEWNET) => Refused(Errno::PERM)),
        attempt!("enter a namespace by a descriptor"; SYS_setns(targets.own.machine, 0)
            => Refused(Errno::INVAL)),
    ]
}

fn kernel_interfaces() -> Vec<Attempt> {
    use Otherwise::{Made, Refused, Unknown};
    let counter = || Argument::Bytes(vec![0; 128]);
    vec![
        attempt!("load a program of the kernel's"; SYS_bpf(0, counter(), 128) => Unknown),
        attempt!("count what the kernel does"; SYS_perf_event_open(counter(), 0, -1, -1, 0)
            => Refused(Errno::ACCESS)),
        attempt!("handle page faults"; SYS_userfaultfd(0) => Unknown),
        attempt!("make a ring of requests"; SYS_io_uring_setup(1, counter())
            => Made("the ring's requests are made as its user, in its jail")),
        attempt!("join a session's keyring"; SYS_keyctl(1, 0, 0, 0, 0) => Unknown),
        attempt!("add a key"; SYS_add_key(text("user"), text("name"), text("x"), 1, -3) => Unknown),
        attempt!("have the kernel ask root for a key";
            SYS_request_key(text("user"), text("name"), text("x"), -3)
            => Unknown),
        attempt!("load a module"; SYS_finit_module(0, text(""), 0) => Unknown),
        attempt!("use ports of the machine"; SYS_iopl(3) => Refused(Errno::PERM)),
        attempt!("restart the machine"; SYS_reboot(0xfee1_dead_u32, 672_274_793, 0x0123_4567, 0)
            => Refused(Errno::PERM)),
        attempt!("name the machine"; SYS_sethostname(text("taken"), 5) => Refused(Errno::PERM)),
        attempt!("set the clock"; SYS_clock_settime(CLOCK_REALTIME, Argument::Bytes(vec![0; 16]))
            => Refused(Errno::PERM)),
        attempt!("read the kernel's log"; SYS_syslog(3, Argument::Bytes(vec![0; 64]), 64)
            => Made("where the parent lets all its users read it (kernel.dmesg_restrict)")),
    ]
}

fn sockets() -> Vec<Attempt> {
    use Otherwise::{Made, Refused};
    vec![
        attempt!("speak IP"; SYS_socket(AF_INET, SOCK_STREAM, 0)
            => Made("its namespace of networks has no interface that is up")),
        attempt!("speak netlink"; SYS_socket(AF_NETLINK, SOCK_RAW, 0)
            => Made("of its own namespace of networks, where it may change nothing")),
        attempt!("speak raw packets"; SYS_socket(AF_PACKET, SOCK_RAW, 0) => Refused(Errno::PERM)),
        attempt!("speak vsock"; SYS_socket(AF_VSOCK, SOCK_STREAM, 0)
            => Made("it reaches what every user of the parent reaches")),
        attempt!("speak to the kernel's cryptography"; SYS_socket(AF_ALG, SOCK_SEQPACKET, 0)
            => Refused(Errno::AFNOSUPPORT)),
        attempt!("listen"; SYS_listen(0, 1) => Refused(Errno::INVAL)),
    ]
}

fn memory() -> Vec<Attempt> {
    use Otherwise::{Made, Untried};
    let executable = PROT_READ | PROT_EXEC;
    vec![
        attempt!("map memory to execute"; SYS_mmap(0, 4096, executable, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            => Made("it executes its own code as it is")),
        attempt!("make memory executable"; SYS_mprotect(0, 0, executable) => Untried("likewise")),
        attempt!("make a file of memory"; SYS_memfd_create(text(""), 0)
            => Made("it counts as its memory, and no larger than a file of its may be")),
        attempt!("share memory (System V)"; SYS_shmget(IPC_PRIVATE, 4096, 0o600)
            => Made("in its own namespace of these")),
        attempt!("make a queue of messages"; SYS_mq_open(text("queue"), O_CREAT | O_RDWR, 0o600, 0)
            => Made("in its own namespace of these")),
    ]
}

fn own_descriptors(targets: &Targets) -> Vec<Attempt> {
    use Otherwise::{Made, Refused, Untried};
    let own = targets.own;
    let cid = || Argument::Bytes(u64::from(targets.victims_cid).to_le_bytes().to_vec());
    let nothing = || Argument::Bytes(vec![0; 8]);
    // Slot 31, at 256 GiB, a page of the process's own.
    let region = || Argument::words(&[31, 0, 0, 1 << 6, 1 << 12, 0, 0x40_0000, 0]);
    let mut all = vec![
        attempt!("make another virtual machine"; SYS_ioctl(own.kvm, KVM_CREATE_VM, 0)
            => Made("it has /dev/kvm, which any user may have")),
        attempt!("give the guest memory that is not its own";
            SYS_ioctl(own.machine, KVM_SET_USER_MEMORY_REGION, region())
            => Made("what the process could read itself")),
        attempt!("type into a terminal"; SYS_ioctl(0, TIOCSTI, text("x")) => Refused(Errno::NOTTY)),
        attempt!("lengthen its file"; SYS_ftruncate(own.outcome, GIB)
            => Untried("it ends the process, since no file of its may be so large")),
        attempt!("take disk for its file"; SYS_fallocate(own.outcome, 0, 0, GIB) => Untried("likewise")),
        attempt!("write where it likes in its file"; SYS_pwrite64(own.outcome, text("x"), 1, GIB)
            => Untried("likewise")),
    ];
    if let Some(vhost) = own.vhost {
        all.push(
            attempt!("take another enclave's CID"; SYS_ioctl(vhost, VHOST_VSOCK_SET_GUEST_CID, cid())
            => Refused(Errno::ADDRINUSE)),
        );
        all.push(attempt!("show the kernel's vsock other memory";
            SYS_ioctl(vhost, VHOST_SET_MEM_TABLE, nothing())
            => Made("the kernel reads and writes by it what the VMM itself could")));
    }
    // Descriptors of the machine are there when it boots, and it is boot's work.
    let of_boot = |attempt: &Attempt| attempt.call == SYS_ioctl && attempt.what != "type into a terminal";
    all.into_iter()
        .map(|attempt| Attempt {
            is_of_boot: of_boot(&attempt),
            ..attempt
        })
        .collect()
}

/// What others would have less of.
fn the_machine() -> Vec<Attempt> {
    use Otherwise::{Made, Refused};
    let of_boot = attempt!("run on other CPUs"; SYS_sched_setaffinity(0, 128, Argument::Bytes(vec![0xff; 128]))
        => Made("where enclaves have CPUs in a partition of their own, not on those"));
    vec![
        Attempt {
            is_of_boot: true,
            ..of_boot
        },
        attempt!("run before others"; SYS_setpriority(PRIO_PROCESS, 0, -20) => Refused(Errno::ACCESS)),
        attempt!("run in real time"; SYS_sched_setscheduler(0, SCHED_FIFO, Argument::words(&[1]))
            => Refused(Errno::PERM)),
        attempt!("read disks before others"; SYS_ioprio_set(1, 0, IOPRIO_REAL_TIME) => Refused(Errno::PERM)),
        attempt!("let itself be dumped"; SYS_setrlimit(RLIMIT_CORE, Argument::Bytes(vec![0xff; 16]))
            => Refused(Errno::PERM)),
    ]
}
