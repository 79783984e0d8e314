//! What a target has done so far, as a line for people and their tools.
//!
//! ```text
//! vsock port 8000 -> kms.us-east-1.amazonaws.com:443: accepted=3 open=1 failed=0 from_enclaves=5120 to_enclaves=90112
//! ```
//!
//! A line rather than a port to ask at: it needs no listener that somebody else could reach, no format of anybody's, and
//! reaches whatever reads the log.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Since the process started. Bytes are those that were passed on.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) ended: AtomicU64,
    /// Connections that were closed because the other one could not be made.
    pub(crate) failed: AtomicU64,
    pub(crate) from_enclaves: AtomicU64,
    pub(crate) to_enclaves: AtomicU64,
}

impl Counters {
    pub(crate) fn add_one(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order: what ends in between has been accepted.
        let ended = value(&self.ended);
        let accepted = value(&self.accepted);
        write!(
            f,
            "accepted={accepted} open={} failed={} from_enclaves={} to_enclaves={}",
            accepted.saturating_sub(ended),
            value(&self.failed),
            value(&self.from_enclaves),
            value(&self.to_enclaves)
        )
    }
}
