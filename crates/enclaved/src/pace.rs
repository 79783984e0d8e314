//! How often one user may ask.
//!
//! Each user has a bucket of tokens that fills at a steady rate. Whoever finds it empty waits for the next token, before its request is
//! read. So a user that asks without end has its clients wait, takes up its own places ([`crate::places`]), and leaves the daemon's
//! time to others. Root does not wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::peer::Peer;

/// Requests of a user in a second, and as many at once after a pause.
const PER_SECOND: u32 = 100;

const SECOND: Duration = Duration::from_secs(1);

/// The buckets: when each will be, or was, empty. Full ones are left out.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<BTreeMap<u32, Instant>>);

impl Pace {
    /// Waits until it is the turn of a request of `client`.
    pub(crate) async fn wait(&self, client: Peer) {
        if client.is_root() {
            return;
        }
        let turn = self.turn(client.user, Instant::now());
        tokio::time::sleep_until(turn).await;
    }

    /// Takes a token; when it may be used.
    fn turn(&self, user: u32, now: Instant) -> Instant {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, empty_at| *empty_at + SECOND > now);
        let full = now.checked_sub(SECOND).unwrap_or(now);
        let start = buckets.get(&user).map_or(full, |empty_at| full.max(*empty_at));
        let turn = start + SECOND / PER_SECOND;
        buckets.insert(user, turn);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::tests::user;

    #[tokio::test(start_paused = true)]
    async fn a_user_that_asks_too_often_waits_and_others_do_not() {
        tokio::time::advance(Duration::from_mins(1)).await;
        let pace = Pace::default();
        let start = Instant::now();
        for _ in 0..PER_SECOND {
            pace.wait(user(1)).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);

        pace.wait(user(2)).await;
        for _ in 0..1000 {
            pace.wait(user(0)).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..PER_SECOND {
            pace.wait(user(1)).await;
        }

        assert!(
            start.elapsed() >= Duration::from_millis(900),
            "{:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn users_who_have_paused_are_forgotten() {
        let pace = Pace::default();
        for number in 1..1000 {
            pace.turn(number, Instant::now());
        }
        tokio::time::advance(Duration::from_secs(3)).await;

        pace.turn(1, Instant::now());

        assert_eq!(pace.0.lock().unwrap().len(), 1);
    }
}
