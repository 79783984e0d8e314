//! What the VMM process gives up before it reads anything.
//!
//! Where it is and who it is comes first ([`crate::sandbox::jail`]). What it may take of the machine comes here.

use std::io;

use api::vmm::LaunchSpec;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::log;

/// The name in `ps`: a program that is executed through a descriptor is called after the descriptor's number.
const NAME: &std::ffi::CStr = c"enclave-vmm";

/// What the process may write into a file, in bytes: more than its last event takes. The file for that is on a file system on
/// which others need room.
const LARGEST_FILE: u64 = 1 << 20;

/// What may be open at a time: the most connections of the vsock device, and as much again for clients, vCPUs and the rest.
const MOST_DESCRIPTORS: u64 = 8192;

/// Bytes of address space beside guest memory. Buffers of the vsock device, 96 MiB at most, are the largest part of what is used.
const OWN_MEMORY: u64 = 1 << 30;

/// And for each vCPU: the stack of its thread, and what it shares with KVM.
const MEMORY_OF_VCPU: u64 = 8 << 20;

/// Threads beside those of vCPUs: two of this program, those that the kernel starts in it for KVM and vhost, and some to spare.
const OTHER_THREADS: u64 = 16;

/// Has no program that it might execute give it privileges, nobody but root dump, trace or look into it, and no file grow beyond
/// bounds. None of it can fail on a Linux that has KVM; if something does, that is logged, since an enclave without it is as good
/// as one of an older version.
pub fn give_up() {
    let _ = rustix::thread::set_name(NAME);
    let given_up = rustix::thread::set_no_new_privs(true)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .and_then(|()| limit(Resource::Core, 0))
        .and_then(|()| limit(Resource::Fsize, LARGEST_FILE))
        .and_then(|()| limit(Resource::Nofile, MOST_DESCRIPTORS));
    if let Err(error) = given_up {
        log::line(format_args!("privileges could not be given up: {error}"));
    }
}

/// Limits memory and threads to what this enclave takes at most. Threads are counted for each user, so that this is a limit for a
/// VMM that is a user of its own, and none for root.
///
/// # Errors
/// If the operating system refuses.
pub fn limit_to_needs(spec: &LaunchSpec) -> io::Result<()> {
    let vcpus = u64::try_from(spec.cpu_ids.len()).unwrap_or(u64::MAX);
    let memory = spec
        .memory
        .iter()
        .map(|file| file.size)
        .fold(MEMORY_OF_VCPU.saturating_mul(vcpus), u64::saturating_add);
    limit(Resource::As, memory.saturating_add(OWN_MEMORY))?;
    limit(Resource::Nproc, vcpus.saturating_add(OTHER_THREADS))?;
    Ok(())
}

/// For good: only a privileged process may raise it again. One that is lower already stays.
fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let present = rustix::process::getrlimit(resource);
    let lower = |present: Option<u64>| Some(present.map_or(most, |present| present.min(most)));
    let limit = Rlimit {
        current: lower(present.current),
        maximum: lower(present.maximum),
    };
    rustix::process::setrlimit(resource, limit)
}
