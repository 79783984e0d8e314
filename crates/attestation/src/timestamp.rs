//! Points in time, without the doubt whether a number counts seconds or milliseconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use der::DateTime;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Displayed as RFC 3339 with whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From Unix time in milliseconds, as documents carry it.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From Unix time in seconds, as certificates carry it. The far end of the range is capped.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Unix time in milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Unix time in whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// `duration` later, capped at the end of the range.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// `duration` earlier, capped at 1970.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How far apart two points in time are, whichever comes first.
    #[must_use]
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// The date, if its year has four digits.
    pub(crate) fn to_date_time(self) -> Option<DateTime> {
        DateTime::from_unix_duration(Duration::from_secs(self.as_secs())).ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl FromStr for Timestamp {
    type Err = NoTimestamp;

    /// Reads what [`fmt::Display`] prints: RFC 3339 in UTC with whole seconds, `2021-03-05T17:01:49Z`.
    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        let date: DateTime = text.parse().map_err(|_| NoTimestamp)?;
        Ok(Self::from_secs(date.unix_duration().as_secs()))
    }
}

/// A text that is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 2021-03-05T17:01:49Z")]
pub struct NoTimestamp;

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_date_time() {
            Some(date) => date.fmt(f),
            None => write!(f, "{} s after 1970", self.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_milliseconds_agree() {
        let time = Timestamp::from_millis(1_614_963_709_526);
        assert_eq!(time.as_secs(), 1_614_963_709);
        assert_eq!(time.to_string(), "2021-03-05T17:01:49Z");
        assert_eq!(
            "2021-03-05T17:01:49Z".parse(),
            Ok(Timestamp::from_secs(1_614_963_709))
        );
        for text in ["", "2021-03-05", "2021-13-05T17:01:49Z", "2021-03-05T17:01:49"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NoTimestamp), "{text}");
        }
        assert_eq!(Timestamp::from_secs(1_614_963_709).as_millis(), 1_614_963_709_000);
    }

    #[test]
    fn arithmetic_stops_at_the_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(
            Timestamp::from_millis(999).before(second),
            Timestamp::from_millis(0)
        );
        assert_eq!(
            Timestamp::from_millis(u64::MAX).after(second).as_millis(),
            u64::MAX
        );
        assert_eq!(Timestamp::from_secs(u64::MAX).as_millis(), u64::MAX);
        assert_eq!(Timestamp::from_secs(5).after(Duration::MAX).as_millis(), u64::MAX);
        let far = Timestamp::from_millis(u64::MAX).to_string();
        assert_eq!(far, "18446744073709551 s after 1970");
    }

    #[test]
    fn distance_has_no_sign() {
        let (early, late) = (Timestamp::from_millis(1), Timestamp::from_millis(2500));
        assert_eq!(early.distance(late), Duration::from_millis(2499));
        assert_eq!(late.distance(early), Duration::from_millis(2499));
    }
}
