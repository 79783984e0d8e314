//! What the VMM process gives up before it reads anything.
//!
//! The daemon has made it a user of its own, without groups or capabilities. What only a process itself can do for good comes
//! here.

use rustix::process::DumpableBehavior;

use crate::log;

/// The name in `ps`: a program that is executed through a descriptor is called after the descriptor's number.
const NAME: &std::ffi::CStr = c"enclave-vmm";

/// Has no program that it might execute give it privileges, and nobody but root dump, trace or look into it. Neither can fail
/// on a Linux that has KVM; if one does, that is logged, since an enclave without it is as good as one of an older version.
pub fn give_up() {
    let _ = rustix::thread::set_name(NAME);
    let given_up = rustix::thread::set_no_new_privs(true)
        .and_then(|()| rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = given_up {
        log::line(format_args!("privileges could not be given up: {error}"));
    }
}
