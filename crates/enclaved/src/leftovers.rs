//! What a VMM that was taken over may leave behind when it is killed: other processes of its user.
//!
//! Killing a process ends its threads, but not its children, and not a process that shares its memory without being a thread of
//! it (clone(2)). Such a one goes on with all that the VMM held: CPUs, guest memory, the guest itself. So nothing of an enclave is
//! given back before they have ended too. Where the enclave has a control group, that is killed as a whole, which no process
//! gets out of ([`crate::cpu_partition`]). Elsewhere the processes of its user, which no other enclave has, are looked for and
//! killed until there are none.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::registry::Lease;
use crate::vmm_user::VmmUser;

/// How often is looked, and the pause in between: what was killed takes a moment to end.
const ROUNDS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// Ends every process that the enclave still has once its VMM has ended. What does not end is logged.
pub(crate) async fn end(lease: &Lease, user: Option<VmmUser>) {
    for round in 0..ROUNDS {
        let some = lease
            .kill_group()
            .unwrap_or_else(|| user.is_some_and(kill_processes_of));
        if !some {
            return;
        }
        if round == 0 {
            let enclave = &lease.facts().id;
            tracing::error!(%enclave, "its VMM has left processes behind, which are killed");
        }
        tokio::time::sleep(PAUSE).await;
    }
    let enclave = &lease.facts().id;
    tracing::error!(%enclave, "what its VMM has left behind does not end");
}

/// Whether there was one.
fn kill_processes_of(user: VmmUser) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut some = false;
    for process in processes.filter_map(Pid::from_raw) {
        // Opened first: whose it is is asked of the number, which then is still that of the process.
        let Ok(handle) = rustix::process::pidfd_open(process, PidfdFlags::empty()) else {
            continue;
        };
        if is_of(user, process) {
            some |= rustix::process::pidfd_send_signal(&handle, Signal::KILL).is_ok();
        }
    }
    some
}

/// Whether a process is a user's. One that has ended, but that nobody has waited for, is nobody's.
fn is_of(user: VmmUser, process: Pid) -> bool {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let is_dead = field("State:").is_some_and(|state| state.trim_start().starts_with(['Z', 'X']));
    let users = field("Uid:").unwrap_or_default();
    !is_dead && users.split_whitespace().any(|id| id.parse() == Ok(user.id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use crate::vmm_user::VmmUsers;

    #[test]
    fn processes_of_the_user_are_killed_and_no_others() {
        let sleeper = |user: VmmUser| {
            let mut command = Command::new("sleep");
            command.arg("1000").uid(user.id()).gid(user.id());
            command.spawn().unwrap()
        };
        let users = VmmUsers::from(7100);
        let (user, other) = (users.of(&[1]).unwrap(), users.of(&[2]).unwrap());
        let (mut ours, mut others) = (sleeper(user), sleeper(other));

        assert!(kill_processes_of(user));

        assert!(!ours.wait().unwrap().success());
        assert!(!kill_processes_of(user));
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
