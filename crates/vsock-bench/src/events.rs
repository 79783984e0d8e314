//! What the parent does for one operation: system calls, thread switches, exits of the guest, packets in the kernel.
//!
//! The parent's kernel records these events while a few operations are done, and they are counted by thread. Recording
//! takes time itself, so nothing is timed meanwhile.

use std::{collections::BTreeMap, fmt::Write as _, fs, io, path::PathBuf};

/// Where Linux mounts it.
const ROOT: &str = "/sys/kernel/tracing";

/// Which events, and how much of each record beside the event's name tells them apart.
const EVENTS: [(&str, Detail); 6] = [
    ("raw_syscalls/sys_enter", Detail::Call),
    ("sched/sched_switch", Detail::None),
    ("kvm/kvm_exit", Detail::After("reason ")),
    ("kvm/kvm_set_irq", Detail::None),
    ("vsock/virtio_transport_alloc_pkt", Detail::After("op=")),
    ("vsock/virtio_transport_recv_pkt", Detail::After("op=")),
];

#[derive(Debug, Clone, Copy)]
enum Detail {
    None,
    /// The number after `NR `, as a name.
    Call,
    /// The word after this text.
    After(&'static str),
}

/// The kernel's event tracing, which this program has for itself.
#[derive(Debug)]
pub(crate) struct Events {
    root: PathBuf,
}

/// How often each event came, by thread.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts(BTreeMap<(String, String), u32>);

impl Events {
    /// Those of this machine.
    pub(crate) fn of_this_machine() -> Self {
        Self { root: ROOT.into() }
    }

    /// Records from now on.
    pub(crate) fn start(&self) -> io::Result<()> {
        self.write("tracing_on", "0")?;
        self.write("set_event", "")?;
        self.write("buffer_size_kb", "16384")?;
        self.write("trace", "")?;
        for (event, _) in EVENTS {
            self.write(&format!("events/{event}/enable"), "1")?;
        }
        self.write("tracing_on", "1")
    }

    /// Records nothing any more.
    pub(crate) fn stop(&self) -> io::Result<()> {
        self.write("tracing_on", "0")?;
        self.write("set_event", "")
    }

    /// What was recorded, as text.
    pub(crate) fn records(&self) -> io::Result<String> {
        fs::read_to_string(self.root.join("trace"))
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
        fs::write(self.root.join(file), text).map_err(named)
    }
}

impl Counts {
    /// Of records in the form of the file `trace`: `THREAD-PID [CPU] FLAGS TIME: EVENT: REST`.
    pub(crate) fn of(records: &str) -> Self {
        let mut counts = BTreeMap::new();
        for (thread, event) in records.lines().filter_map(parse) {
            *counts.entry((thread, event)).or_default() += 1;
        }
        Self(counts)
    }

    /// A line for each event that came at least once in ten of the `operations`.
    pub(crate) fn text(&self, operations: u32) -> String {
        let mut text = String::new();
        for ((thread, event), count) in &self.0 {
            let each = f64::from(*count) / f64::from(operations);
            if each >= 0.1 {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "  {each:8.2}  {thread:16}  {event}");
            }
        }
        text
    }
}

/// Thread and event of a record of one of [`EVENTS`].
fn parse(line: &str) -> Option<(String, String)> {
    let (thread, rest) = line.trim_start().split_once(" [")?;
    let thread = thread.trim_end().rsplit_once('-')?.0;
    for (event, detail) in EVENTS {
        let name = event.rsplit_once('/')?.1;
        // System calls are recorded under another name than their event's.
        let Some((_, record)) = rest.split_once(&format!(": {name}: ")) else {
            continue;
        };
        let detail = match detail {
            Detail::None => String::new(),
            Detail::Call => call(record),
            Detail::After(text) => word_after(record, text).to_owned(),
        };
        return Some((thread.to_owned(), format!("{name} {detail}")));
    }
    None
}

fn word_after<'a>(record: &'a str, text: &str) -> &'a str {
    let rest = record.split_once(text).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or("")
}

/// By the numbers in `arch/x86/entry/syscalls/syscall_64.tbl`; the rest keeps its number.
fn call(record: &str) -> String {
    let number = word_after(record, "NR ");
    let name = match number {
        "0" => "read",
        "1" => "write",
        "3" => "close",
        "7" => "poll",
        "16" => "ioctl",
        "19" => "readv",
        "20" => "writev",
        "41" => "socket",
        "42" => "connect",
        "43" => "accept",
        "44" => "sendto",
        "45" => "recvfrom",
        "46" => "sendmsg",
        "47" => "recvmsg",
        "72" => "fcntl",
        "202" => "futex",
        "232" => "epoll_wait",
        "233" => "epoll_ctl",
        "271" => "ppoll",
        "281" => "epoll_pwait",
        "288" => "accept4",
        other => other,
    };
    name.to_owned()
}
