//! Waiting for things to happen.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before it counts as hung. Emulated machines on a busy host are slow; nothing is expected
/// to come near.
pub const LIMIT: Duration = Duration::from_mins(5);

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until `look` sees something and returns that.
///
/// # Panics
/// After [`LIMIT`], with `what` was waited for.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(LIMIT, look).unwrap_or_else(|| panic!("waited for {} s in vain: {what}", LIMIT.as_secs()))
}

/// Looks until `look` sees something; `None` if it has not after `limit`.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(INTERVAL);
    }
}
