//! Lines that whoever connects could otherwise fill the log with.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says when a line may be written: the first time, and again when enough time has gone by since the last one.
#[derive(Debug)]
pub(crate) struct LogLimit {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl LogLimit {
    pub(crate) fn once_in(interval: Duration) -> Self {
        Self {
            interval,
            last: Mutex::new(None),
        }
    }

    /// Whether this one may be written. If so, the next ones may not for a while.
    pub(crate) fn allows(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let allows = last.is_none_or(|last| last.elapsed() >= self.interval);
        if allows {
            *last = Some(Instant::now());
        }
        allows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_allowed_in_each_interval() {
        let rare = LogLimit::once_in(Duration::MAX);
        assert_eq!(
            [rare.allows(), rare.allows(), rare.allows()],
            [true, false, false]
        );
        let always = LogLimit::once_in(Duration::ZERO);
        assert_eq!([always.allows(), always.allows()], [true, true]);
    }
}
