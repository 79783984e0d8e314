//! What the VMM process gives up before it reads anything.
//!
//! The daemon has made it a user of its own, without groups or capabilities. What only a process itself can do for good comes
//! here.

use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::log;

/// The name in `ps`: a program that is executed through a descriptor is called after the descriptor's number.
const NAME: &std::ffi::CStr = c"enclave-vmm";

/// What the process may write into a file, in bytes: more than its last event takes. The file for that is on a file system on
/// which others need room.
const LARGEST_FILE: u64 = 1 << 20;

/// Has no program that it might execute give it privileges, nobody but root dump, trace or look into it, and no file grow beyond
/// bounds. None of it can fail on a Linux that has KVM; if something does, that is logged, since an enclave without it is as good
/// as one of an older version.
pub fn give_up() {
    let _ = rustix::thread::set_name(NAME);
    let given_up = rustix::thread::set_no_new_privs(true)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .and_then(|()| limit(Resource::Core, 0))
        .and_then(|()| limit(Resource::Fsize, LARGEST_FILE));
    if let Err(error) = given_up {
        log::line(format_args!("privileges could not be given up: {error}"));
    }
}

/// For good: only a privileged process may raise it again.
fn limit(resource: Resource, bytes: u64) -> rustix::io::Result<()> {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: Some(bytes),
    };
    rustix::process::setrlimit(resource, limit)
}
