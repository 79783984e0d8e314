//! Signals of the VMM process: the ones that end a program end an enclave.
//!
//! A program started from a shell may inherit *ignored* signals (`nohup`, `trap ''`), and would pass them on through the
//! daemon to here. AWS's nitro-cli promises that SIGTERM, SIGINT, SIGQUIT and SIGHUP to an enclave's `ProcessID` end the
//! enclave, so whoever started the daemon must not be able to take that away.

/// The signals that end an enclave.
const ENDING: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP];

/// Gives the ending signals their default action. A VMM holds nothing that needs an orderly end.
#[expect(unsafe_code, reason = "the standard library cannot set a signal's action")]
pub fn restore_default_actions() {
    for signal in ENDING {
        // SAFETY: SIG_DFL installs no code of ours, and no other thread exists yet that relies on another action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
