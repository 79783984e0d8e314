//! What the kernel's trace says about one start of a VMM.
//!
//! The file `trace` of tracefs (`Documentation/trace/ftrace.rst`) has a line for each event:
//!
//! ```text
//!  enclave-vmm-97      [000] .....    21.104329: sched_process_exec: filename=/usr/bin/enclave-vmm pid=97 old_pid=97
//!  enclave-vmm-97      [000] .....    21.104402: sys_brk(brk: 0)
//!  enclave-vmm-97      [000] .....    21.150113: sched_process_fork: comm=enclave-vmm pid=97 child_comm=… child_pid=98
//!        vcpu0-98      [000] .....    21.151000: sys_ioctl(fd: c, cmd: ae80, arg: 0)
//!        vcpu0-98      [000] d....    21.151020: kvm_entry: vcpu 0, rip 0x1000200
//!        vcpu0-98      [000] .....    21.204010: kvm_pio: pio_write at 0xe9 size 1 count 1 val 0x55
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// `KVM_RUN` as `ioctl(2)` takes it (`include/uapi/linux/kvm.h`).
const KVM_RUN: &str = "cmd: ae80";

/// Moments of one start, since the VMM's program was executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// The first vCPU enters the guest.
    pub(crate) first_run: Option<Duration>,
    /// Process 1 of the guest writes its byte.
    pub(crate) user_space: Option<Duration>,
}

impl Timeline {
    /// Of the last VMM that was executed, if there is one.
    pub(crate) fn parse(trace: &str) -> Option<Self> {
        let mut timeline = None;
        let mut start = Duration::ZERO;
        for line in trace.lines().filter_map(Line::parse) {
            let since_start = line.time.checked_sub(start);
            match (line.event(), &mut timeline) {
                ("sched_process_exec", _) => {
                    start = line.time;
                    timeline = Some(Self::default());
                }
                ("kvm_entry", Some(timeline)) if timeline.first_run.is_none() => {
                    timeline.first_run = since_start;
                }
                ("kvm_pio", Some(timeline)) if timeline.user_space.is_none() => {
                    timeline.user_space = since_start;
                }
                _ => {}
            }
        }
        timeline
    }
}

/// How often each system call was made, by all threads of a VMM, between its execution and its first `KVM_RUN`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SystemCalls(BTreeMap<String, u32>);

impl SystemCalls {
    /// Of the first VMM that was executed. `None` if `KVM_RUN` has not been reached.
    pub(crate) fn parse(trace: &str) -> Option<Self> {
        let mut tasks = BTreeSet::new();
        let mut calls = Self::default();
        for line in trace.lines().filter_map(Line::parse) {
            match line.event() {
                "sched_process_exec" if tasks.is_empty() => {
                    tasks.insert(line.task);
                }
                "sched_process_fork" if tasks.contains(&line.task) => {
                    tasks.extend(line.number("child_pid="));
                }
                _ => {}
            }
            if let Some((name, arguments)) = line.system_call().filter(|_| tasks.contains(&line.task)) {
                if name == "ioctl" && arguments.contains(KVM_RUN) {
                    return Some(calls);
                }
                *calls.0.entry(name.to_owned()).or_default() += 1;
            }
        }
        None
    }

    /// All of them.
    pub(crate) fn total(&self) -> u32 {
        self.0.values().sum()
    }

    /// Names and numbers, the most frequent first.
    pub(crate) fn by_frequency(&self) -> Vec<(&str, u32)> {
        let mut calls: Vec<_> = self
            .0
            .iter()
            .map(|(name, count)| (name.as_str(), *count))
            .collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        calls
    }
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    /// The kernel's number of the thread it happened in.
    task: u32,
    /// Since the parent was started.
    time: Duration,
    /// Name and fields.
    text: &'a str,
}

impl<'a> Line<'a> {
    /// `None` for the file's head.
    fn parse(line: &'a str) -> Option<Self> {
        let (before, text) = line.split_once(": ")?;
        let (before, time) = before.rsplit_once(' ')?;
        let (task, _cpu_and_flags) = before.rsplit_once(" [")?;
        let (_name, task) = task.trim_end().rsplit_once('-')?;
        Some(Self {
            task: task.parse().ok()?,
            time: parse_time(time)?,
            text,
        })
    }

    /// The event's name; empty for a system call.
    fn event(&self) -> &'a str {
        self.text.split_once(": ").map_or("", |(name, _)| name)
    }

    /// Name and arguments of a system call that begins.
    fn system_call(&self) -> Option<(&'a str, &'a str)> {
        let (name, arguments) = self.text.strip_prefix("sys_")?.split_once('(')?;
        Some((name, arguments))
    }

    /// The number in a field such as `child_pid=98`.
    fn number(&self, field: &str) -> Option<u32> {
        self.text
            .split(' ')
            .find_map(|word| word.strip_prefix(field))?
            .parse()
            .ok()
    }
}

/// `21.104329`: seconds and microseconds.
fn parse_time(text: &str) -> Option<Duration> {
    let (seconds, fraction) = text.split_once('.')?;
    if fraction.len() != 6 {
        return None;
    }
    let micros: u64 = fraction.parse().ok()?;
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "\
# tracer: nop
#
# entries-in-buffer/entries-written: 4/4   #P:1
#
#                                _-----=> irqs-off/BH-disabled
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
";

    #[test]
    fn moments_are_counted_from_the_execution() {
        let trace = format!(
            "{HEAD}\
     enclave-vmm-97      [000] .....    21.104329: sched_process_exec: filename=/usr/bin/enclave-vmm pid=97 old_pid=97
           v-cpu 0-98      [000] d..2.    21.151021: kvm_entry: vcpu 0, rip 0x1000200
           v-cpu 0-98      [000] d..2.    21.152000: kvm_entry: vcpu 0, rip 0x1000200
           vcpu0-98      [001] .....    22.000001: kvm_pio: pio_write at 0xe9 size 1 count 1 val 0x55\n"
        );
        let timeline = Timeline::parse(&trace).unwrap();
        assert_eq!(timeline.first_run, Some(Duration::from_micros(46_692)));
        assert_eq!(timeline.user_space, Some(Duration::from_micros(895_672)));
    }

    #[test]
    fn a_start_that_is_not_over_has_no_later_moments() {
        assert_eq!(Timeline::parse(HEAD), None);
        let trace =
            "vmm-97 [000] ..... 21.104329: sched_process_exec: filename=/usr/bin/vmm pid=97 old_pid=97\n";
        assert_eq!(Timeline::parse(trace), Some(Timeline::default()));
        let early = "vcpu0-12 [000] ..... 20.000000: kvm_entry: vcpu 0, rip 0x0\n";
        assert_eq!(
            Timeline::parse(&format!("{early}{trace}")),
            Some(Timeline::default())
        );
    }

    const CALLS: &str = "\
      boot-bench-80      [000] .....    21.104000: sys_execve(filename: 7ffe, argv: 1, envp: 2)
     enclave-vmm-97      [000] .....    21.104329: sched_process_exec: filename=/usr/bin/enclave-vmm pid=97 old_pid=97
     enclave-vmm-97      [000] .....    21.104402: sys_brk(brk: 0)
     enclave-vmm-97      [000] .....    21.104403: sys_ioctl(fd: 4, cmd: ae01, arg: 0)
      boot-bench-80      [000] .....    21.104500: sys_read(fd: 4, buf: 7ffe, count: 8)
     enclave-vmm-97      [000] .....    21.150113: sched_process_fork: comm=enclave-vmm pid=97 child_comm=enclave-vmm child_pid=98
     enclave-vmm-97      [000] .....    21.150200: sys_brk(brk: 5000)
           vcpu0-98      [000] .....    21.150300: sys_sched_setaffinity(pid: 0, len: 80, user_mask_ptr: 7f)
";
    const RUN: &str = "vcpu0-98      [000] .....    21.151000: sys_ioctl(fd: c, cmd: ae80, arg: 0)\nvcpu0-98 [000] ..... 21.152000: sys_brk(brk: 0)\n";

    #[test]
    fn calls_of_all_threads_count_until_the_guest_is_entered() {
        let calls = SystemCalls::parse(&format!("{HEAD}{CALLS}{RUN}")).unwrap();
        assert_eq!(calls.total(), 4);
        assert_eq!(
            calls.by_frequency(),
            [("brk", 2), ("ioctl", 1), ("sched_setaffinity", 1)]
        );
    }

    #[test]
    fn without_a_run_there_is_no_number() {
        assert_eq!(SystemCalls::parse(&format!("{HEAD}{CALLS}")), None);
    }

    #[test]
    fn broken_lines_are_no_events() {
        for line in [
            "",
            ": ",
            "vmm [000] ..... 1.000000: kvm_entry: x",
            "vmm-1 [000] ..... 1.5: kvm_entry: x",
            "vmm-x [000] . 1.000000: a: b",
        ] {
            assert_eq!(Line::parse(line), None, "{line}");
        }
    }
}
