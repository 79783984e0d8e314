//! Ctrl-C, and other wishes that the program end: it leaves no half files.
//!
//! Files without names go by themselves. The few that have one ([`atomic_file`]) are removed by a thread that waits for signals,
//! whatever the others are doing; then the signal has its usual effect, so that a shell sees what happened.

use std::thread;

use api::{ErrorCode, Failure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::signals::is_ignored;

/// From now on, the end of the program by a signal removes what is not finished.
///
/// # Errors
/// E54 if signals cannot be waited for.
pub(crate) fn clean_up_at_the_end() -> Result<(), Failure> {
    let wanted = [SIGHUP, SIGINT, SIGTERM]
        .into_iter()
        .filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(wanted)
        .map_err(|error| Failure::caused_by(ErrorCode::SignalMasking, "Cannot wait for signals", &error))?;
    thread::spawn(move || {
        for signal in &mut signals {
            let _nothing_new = atomic_file::remove_unfinished();
            // Returns only for signals that do not end the program.
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(())
}
