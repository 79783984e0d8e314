//! How often one enclave may ask.
//!
//! Each kind of request has a bucket of tokens that fills at a steady rate. Who finds it empty waits for the next token, and
//! with them, since there is one request at a time, the enclave. The limits are far above what a program needs and far below
//! what would be felt by others: a signature takes about a quarter of a millisecond
//! (`cargo xtask bench nsm`).

use std::time::Duration;

use nsm::Cost;
use tokio::time::Instant;

/// A bucket: tokens per second, and as many at once.
#[derive(Debug)]
struct Bucket {
    every: Duration,
    most: Duration,
    /// When the bucket was, or will be, empty.
    empty_at: Option<Instant>,
}

impl Bucket {
    fn per_second(tokens: u32) -> Self {
        let second = Duration::from_secs(1);
        Self {
            every: second / tokens,
            most: second,
            empty_at: None,
        }
    }

    /// Takes a token; when it may be used.
    fn take(&mut self, now: Instant) -> Instant {
        let oldest = now.checked_sub(self.most).unwrap_or(now);
        let start = self.empty_at.map_or(oldest, |empty_at| empty_at.max(oldest));
        let usable = start + self.every;
        self.empty_at = Some(usable);
        usable
    }
}

/// The buckets of one enclave.
#[derive(Debug)]
pub(super) struct Rate {
    lookups: Bucket,
    changes: Bucket,
    signatures: Bucket,
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            lookups: Bucket::per_second(20_000),
            changes: Bucket::per_second(2_000),
            signatures: Bucket::per_second(200),
        }
    }
}

impl Rate {
    /// Waits for its turn.
    pub(super) async fn wait(&mut self, cost: Cost) {
        let bucket = match cost {
            Cost::Lookup => &mut self.lookups,
            Cost::Change => &mut self.changes,
            Cost::Signature => &mut self.signatures,
        };
        let usable = bucket.take(Instant::now());
        if usable > Instant::now() {
            tokio::time::sleep_until(usable).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_worth_of_requests_is_free_and_then_they_come_at_their_rate() {
        let mut rate = Rate::default();
        tokio::time::advance(Duration::from_mins(1)).await;
        let start = Instant::now();
        for _ in 0..200 {
            rate.wait(Cost::Signature).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);

        for _ in 0..200 {
            rate.wait(Cost::Signature).await;
        }

        let took = start.elapsed();
        assert!(
            (Duration::from_millis(990)..Duration::from_millis(1300)).contains(&took),
            "{took:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_kind_does_not_wait_for_another() {
        let mut rate = Rate::default();
        for _ in 0..300 {
            rate.wait(Cost::Signature).await;
        }
        let start = Instant::now();

        rate.wait(Cost::Lookup).await;

        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
