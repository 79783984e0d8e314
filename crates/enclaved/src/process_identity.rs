//! Which process a number means: a process id is given to another process once its owner is gone.
//!
//! A process is one for good together with the moment it started (field 22 of `/proc/<pid>/stat`, clock ticks since the
//! machine did) and the boot of the machine in which it did (`/proc/sys/kernel/random/boot_id`).

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The identity of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessIdentity {
    /// Its process id.
    pub process_id: u32,
    /// When it started, in clock ticks since the machine did.
    pub start_time: u64,
    /// The boot of the machine.
    pub boot_id: String,
}

impl ProcessIdentity {
    /// Of a process that lives, or that has died and was not waited for.
    pub fn of(process_id: u32) -> Option<Self> {
        Some(Self {
            process_id,
            start_time: start_time(process_id)?,
            boot_id: boot_id(),
        })
    }

    /// A descriptor that means the process from now on, if it still exists and has not ended.
    pub fn open(&self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.process_id).ok().and_then(Pid::from_raw)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // In this order: what is compared is then the process that the descriptor means.
        let same = self.boot_id == boot_id() && start_time(self.process_id) == Some(self.start_time);
        same.then_some(process)
    }
}

fn boot_id() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

fn start_time(process_id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?;
    // The second field, the command in parentheses, may hold anything; the third follows the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_itself_and_no_other() {
        let own = ProcessIdentity::of(std::process::id()).unwrap();

        assert!(own.open().is_some());
        for other in [
            ProcessIdentity {
                start_time: own.start_time + 1,
                ..own.clone()
            },
            ProcessIdentity {
                boot_id: "another".into(),
                ..own.clone()
            },
            ProcessIdentity {
                process_id: 0,
                ..own.clone()
            },
            ProcessIdentity {
                process_id: u32::MAX,
                ..own
            },
        ] {
            assert!(other.open().is_none(), "{other:?}");
        }
    }
}
