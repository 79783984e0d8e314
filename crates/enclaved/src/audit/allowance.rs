//! How many lines of the audit log each user gets.
//!
//! A user gets [`LINES`] in a [`PERIOD`] that begins with the first of them. What is more is counted, and the count is told when the
//! period is over, with the next line of anybody.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Twice what a monitor takes that asks every second.
const LINES: u32 = 120;

const PERIOD: Duration = Duration::from_mins(1);

/// The lines of a user that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) user: u32,
    pub(super) lines: u64,
}

/// What each user has spent. Only users whose period is not over are here, so they are no more than have asked lately.
#[derive(Debug, Default)]
pub(super) struct Allowance(BTreeMap<u32, Period>);

#[derive(Debug)]
struct Period {
    began: Instant,
    spent: u32,
    left_out: u64,
}

impl Allowance {
    /// Whether `user` has a line left; then it has one less.
    pub(super) fn spend(&mut self, user: u32, now: Instant) -> bool {
        let period = self.0.entry(user).or_insert(Period {
            began: now,
            spent: 0,
            left_out: 0,
        });
        let has = period.spent < LINES;
        period.spent = period.spent.saturating_add(1);
        has
    }

    /// A line of `user` was left out.
    pub(super) fn count(&mut self, user: u32) {
        if let Some(period) = self.0.get_mut(&user) {
            period.left_out += 1;
        }
    }

    /// Ends the periods that are over; what was left out in them.
    pub(super) fn over(&mut self, now: Instant) -> Vec<LeftOut> {
        self.end(|period| now.duration_since(period.began) >= PERIOD)
    }

    /// Ends all periods; what was left out in them.
    pub(super) fn close(&mut self) -> Vec<LeftOut> {
        self.end(|_| true)
    }

    fn end(&mut self, is_over: impl Fn(&Period) -> bool) -> Vec<LeftOut> {
        let mut told = Vec::new();
        self.0.retain(|user, period| {
            let over = is_over(period);
            if over && period.left_out > 0 {
                told.push(LeftOut {
                    user: *user,
                    lines: period.left_out,
                });
            }
            !over
        });
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_user_asks_too_often_is_counted_and_another_has_its_own_lines() {
        let start = Instant::now();
        let mut allowance = Allowance::default();
        assert!((0..LINES).all(|_| allowance.spend(1, start)));

        for _ in 0..5 {
            assert!(!allowance.spend(1, start));
            allowance.count(1);
        }

        assert!(allowance.spend(2, start));
        assert_eq!(allowance.over(start), []);
        let told = allowance.over(start + PERIOD);
        assert_eq!(told, [LeftOut { user: 1, lines: 5 }]);
        assert!(allowance.spend(1, start + PERIOD));
        assert_eq!(allowance.over(start + PERIOD), []);
    }
}
