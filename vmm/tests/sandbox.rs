//! What a thread of each class may not do any more, tried by a process that then has the filter of that class.
//!
//! The test runs itself once for each attempt, as a process of its own: a call that is forbidden ends it.

#![expect(unsafe_code, reason = "attempts are raw system calls")]
#![expect(
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "arguments of system calls are words; a test that cannot try fails on the spot"
)]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use enclave_vmm::sandbox::Class;
use enclave_vmm::sandbox::filter::{Filter, Verdict};
use libc::c_long;

/// `CLASS ATTEMPT` of the process that is to try.
const ATTEMPT: &str = "SANDBOX_ATTEMPT";

const CLASSES: [(&str, Class); 5] = [
    ("boot", Class::Boot),
    ("vcpu", Class::Vcpu),
    ("vsock", Class::Vsock { unix_sockets: false }),
    ("vsock-unix", Class::Vsock { unix_sockets: true }),
    ("devices", Class::Devices),
];

/// A system call with its arguments.
#[derive(Clone, Copy)]
struct Attempt {
    name: &'static str,
    call: c_long,
    arguments: [u64; 6],
    /// Classes whose work it is, so that it is not refused to them.
    allowed: &'static [&'static str],
}

const fn attempt(name: &'static str, call: c_long, arguments: [u64; 6]) -> Attempt {
    Attempt {
        name,
        call,
        arguments,
        allowed: &[],
    }
}

const fn allowed(attempt: Attempt, allowed: &'static [&'static str]) -> Attempt {
    Attempt { allowed, ..attempt }
}

const NONE: [u64; 6] = [0; 6];

/// No descriptor is -1, so that what is let through does nothing.
const NO_FILE: u64 = u64::MAX;

#[expect(clippy::too_many_lines, reason = "a table")]
fn attempts() -> Vec<Attempt> {
    use libc::*;
    let path = c"/etc/passwd".as_ptr() as u64;
    let at = AT_FDCWD as u64;
    vec![
        attempt("open a file", SYS_openat, [at, path, 0, 0, 0, 0]),
        attempt("open a file the old way", SYS_open, [path, 0, 0, 0, 0, 0]),
        attempt("open a file the new way", SYS_openat2, [at, path, 0, 0, 0, 0]),
        attempt("make a directory", SYS_mkdirat, [at, path, 0, 0, 0, 0]),
        attempt("remove a name", SYS_unlinkat, [at, path, 0, 0, 0, 0]),
        attempt("rename", SYS_renameat2, [at, path, at, path, 0, 0]),
        attempt("change a mode", SYS_fchmodat, [at, path, 0, 0, 0, 0]),
        attempt("execute", SYS_execve, [path, 0, 0, 0, 0, 0]),
        attempt("execute a descriptor", SYS_execveat, [NO_FILE, path, 0, 0, 0, 0]),
        attempt("fork", SYS_fork, NONE),
        allowed(attempt("start a thread", SYS_clone3, NONE), &["boot"]),
        attempt("trace", SYS_ptrace, [PTRACE_ATTACH.into(), 1, 0, 0, 0, 0]),
        attempt("read another's memory", SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
        attempt(
            "write another's memory",
            SYS_process_vm_writev,
            [1, 0, 0, 0, 0, 0],
        ),
        attempt("signal a process", SYS_kill, [1, 0, 0, 0, 0, 0]),
        attempt("signal a thread of another", SYS_tgkill, [1, 1, 0, 0, 0, 0]),
        attempt(
            "take another's descriptor",
            SYS_pidfd_getfd,
            [NO_FILE, 0, 0, 0, 0, 0],
        ),
        attempt("open another process", SYS_pidfd_open, [1, 0, 0, 0, 0, 0]),
        attempt("mount", SYS_mount, [path, path, path, 0, 0, 0]),
        attempt("change the root", SYS_pivot_root, [path, path, 0, 0, 0, 0]),
        attempt(
            "make a namespace",
            SYS_unshare,
            [CLONE_NEWUSER as u64, 0, 0, 0, 0, 0],
        ),
        attempt("enter a namespace", SYS_setns, [NO_FILE, 0, 0, 0, 0, 0]),
        attempt("become another user", SYS_setresuid, NONE),
        attempt("change another's limits", SYS_prlimit64, [1, 0, 0, 0, 0, 0]),
        attempt(
            "run before others",
            SYS_setpriority,
            [PRIO_PROCESS.into(), 0, -20_i64 as u64, 0, 0, 0],
        ),
        attempt("load a module", SYS_finit_module, [NO_FILE, path, 0, 0, 0, 0]),
        attempt("load a program of the kernel's", SYS_bpf, NONE),
        attempt("use the kernel's keys", SYS_keyctl, NONE),
        attempt("make a ring of requests", SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        attempt("handle page faults", SYS_userfaultfd, NONE),
        attempt("count events", SYS_perf_event_open, NONE),
        attempt(
            "speak IP",
            SYS_socket,
            [AF_INET as u64, SOCK_STREAM as u64, 0, 0, 0, 0],
        ),
        attempt(
            "speak vsock",
            SYS_socket,
            [AF_VSOCK as u64, SOCK_STREAM as u64, 0, 0, 0, 0],
        ),
        attempt(
            "speak netlink",
            SYS_socket,
            [AF_NETLINK as u64, SOCK_RAW as u64, 0, 0, 0, 0],
        ),
        allowed(
            attempt("connect to a Unix socket", SYS_connect, [NO_FILE, 0, 0, 0, 0, 0]),
            &["boot", "vsock-unix"],
        ),
        attempt("listen", SYS_listen, [NO_FILE, 0, 0, 0, 0, 0]),
        attempt("bind", SYS_bind, [NO_FILE, 0, 0, 0, 0, 0]),
        attempt(
            "map memory to execute",
            SYS_mmap,
            [
                0,
                4096,
                PROT_EXEC as u64,
                (MAP_PRIVATE | MAP_ANONYMOUS) as u64,
                NO_FILE,
                0,
            ],
        ),
        attempt(
            "make memory executable",
            SYS_mprotect,
            [0, 0, PROT_EXEC as u64, 0, 0, 0],
        ),
        attempt("type into a terminal", SYS_ioctl, [NO_FILE, TIOCSTI, 0, 0, 0, 0]),
        allowed(
            attempt("take another CID", SYS_ioctl, [NO_FILE, 0x4008_af60, 0, 0, 0, 0]),
            &["boot"],
        ),
        allowed(
            attempt(
                "show vhost other memory",
                SYS_ioctl,
                [NO_FILE, 0x4008_af03, 0, 0, 0, 0],
            ),
            &["boot"],
        ),
        allowed(
            attempt(
                "show the guest other memory",
                SYS_ioctl,
                [NO_FILE, 0x4020_ae46, 0, 0, 0, 0],
            ),
            &["boot"],
        ),
        allowed(
            attempt("run a vCPU", SYS_ioctl, [NO_FILE, 0xae80, 0, 0, 0, 0]),
            &["boot", "vcpu"],
        ),
    ]
}

/// What threads do seldom, so that no run shows when it is not let through.
fn duties() -> Vec<(Attempt, &'static [&'static str])> {
    use libc::*;
    const ALL: &[&str] = &["boot", "vcpu", "vsock", "vsock-unix", "devices"];
    let own = u64::from(std::process::id());
    vec![
        (
            attempt(
                "catch a signal",
                SYS_rt_sigaction,
                [SIGTERM as u64, 0, 0, 8, 0, 0],
            ),
            &["boot"],
        ),
        (attempt("make memory larger", SYS_mremap, NONE), ALL),
        (attempt("let others run", SYS_sched_yield, NONE), ALL),
        (attempt("read the clock", SYS_clock_gettime, NONE), ALL),
        (
            attempt("signal a thread of its own", SYS_tgkill, [own, own, 0, 0, 0, 0]),
            ALL,
        ),
        (
            attempt(
                "die of a fault",
                SYS_rt_sigaction,
                [SIGSEGV as u64, 0, 0, 8, 0, 0],
            ),
            ALL,
        ),
        (
            attempt(
                "take memory of one node",
                SYS_mbind,
                [0, 0, MPOL_BIND as u64, 0, 0, 0],
            ),
            &["boot"],
        ),
        (attempt("limit itself", SYS_prlimit64, NONE), &["boot"]),
        (
            attempt(
                "look at a vCPU that has halted",
                SYS_ioctl,
                [NO_FILE, 0x8040_ae9f, 0, 0, 0, 0],
            ),
            &["boot", "vcpu"],
        ),
        (
            attempt(
                "interrupt the guest",
                SYS_ioctl,
                [NO_FILE, 0x4008_ae61, 0, 0, 0, 0],
            ),
            ALL,
        ),
    ]
}

#[test]
fn what_is_seldom_done_does_not_end_the_process() {
    let mut wrong = Vec::new();
    for (duty, classes) in duties() {
        for class in classes {
            let ended = outcome(class, &duty);
            if !ended.success() {
                wrong.push(format!("{class}: {}: {ended}", duty.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// More threads than glibc has arenas before it counts processors, all of which take memory and give it back.
#[test]
fn many_threads_take_memory_and_give_it_back_under_a_filter() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_one_with_many_threads", "--test-threads", "1"])
        .env(ATTEMPT, "many threads")
        // As `allocator::keep_to_one_arena` has it, but before the test harness has a thread.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
}

/// Does nothing unless it is the process that is to try.
#[test]
fn the_one_with_many_threads() {
    if std::env::var(ATTEMPT).as_deref() != Ok("many threads") {
        return;
    }
    Filter::of(Class::Boot, Verdict::End).unwrap().install().unwrap();
    let filter = Filter::of(Class::Vcpu, Verdict::End).unwrap();
    let barrier = std::sync::Barrier::new(40);
    std::thread::scope(|scope| {
        for size in 0..40 {
            let (filter, barrier) = (&filter, &barrier);
            scope.spawn(move || {
                filter.install().unwrap();
                barrier.wait();
                let memory: Vec<Vec<u8>> = (0..100).map(|_| vec![1; 60_000 + size]).collect();
                barrier.wait();
                drop(memory);
            });
        }
    });
}

/// How a process ends that has the filter of this class and makes this call.
fn outcome(class: &str, attempt: &Attempt) -> ExitStatus {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_one_that_tries", "--test-threads", "1"])
        .env(ATTEMPT, format!("{class} {}", attempt.name))
        .output();
    child.unwrap().status
}

#[test]
fn what_is_nobodys_work_ends_the_process_in_every_class() {
    let mut wrong = Vec::new();
    for (class, _) in CLASSES {
        for attempt in attempts() {
            let ended = outcome(class, &attempt);
            let refused = ended.signal() == Some(libc::SIGSYS);
            if refused == attempt.allowed.contains(&class) {
                wrong.push(format!("{class}: {}: {ended}", attempt.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Does nothing unless it is the process that is to try.
#[test]
fn the_one_that_tries() {
    let Ok(wanted) = std::env::var(ATTEMPT) else {
        return;
    };
    let (class, name) = wanted.split_once(' ').unwrap();
    let Some((_, class)) = CLASSES.into_iter().find(|(name, _)| *name == class) else {
        return;
    };
    let duties = duties().into_iter().map(|(duty, _)| duty);
    let mut all = attempts().into_iter().chain(duties);
    let attempt = all.find(|attempt| attempt.name == name).unwrap();
    Filter::of(class, Verdict::End).unwrap().install().unwrap();
    let Attempt {
        call,
        arguments: [first, second, third, fourth, fifth, sixth],
        ..
    } = attempt;
    // SAFETY: what pointers there are lead to a constant, and no call that is let through succeeds.
    unsafe { libc::syscall(call, first, second, third, fourth, fifth, sixth) };
    // SAFETY: the process is to end.
    unsafe { libc::syscall(libc::SYS_exit_group, 0) };
}
