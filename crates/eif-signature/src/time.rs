//! The times in a certificate, to the second.

use std::fmt;
use std::time::{Duration, SystemTime};

use x509_cert::der::DateTime;
use x509_cert::time::Time;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A time in a certificate. Shown as OpenSSL does: `Nov 22 19:25:22 2026 GMT`, a day below ten with a space in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateTime(DateTime);

impl CertificateTime {
    /// Whether `time` is before this second.
    pub(crate) fn is_after(self, time: SystemTime) -> bool {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .map_or(true, |since_epoch| since_epoch < self.0.unix_duration())
    }

    /// Whether `time` is after the end of this second.
    pub(crate) fn is_over(self, time: SystemTime) -> bool {
        time.duration_since(SystemTime::UNIX_EPOCH)
            .is_ok_and(|since_epoch| since_epoch >= self.0.unix_duration() + Duration::from_secs(1))
    }
}

impl From<Time> for CertificateTime {
    fn from(time: Time) -> Self {
        Self(time.to_date_time())
    }
}

impl fmt::Display for CertificateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(time) = self;
        let month = MONTHS
            .get(usize::from(time.month()).wrapping_sub(1))
            .unwrap_or(&"");
        write!(
            f,
            "{month} {:2} {:02}:{:02}:{:02} {} GMT",
            time.day(),
            time.hour(),
            time.minutes(),
            time.seconds(),
            time.year()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(year: u16, month: u8, day: u8) -> CertificateTime {
        CertificateTime(DateTime::new(year, month, day, 9, 5, 59).unwrap())
    }

    #[test]
    fn times_are_shown_as_openssl_does() {
        assert_eq!(time(2026, 11, 22).to_string(), "Nov 22 09:05:59 2026 GMT");
        assert_eq!(time(2051, 1, 2).to_string(), "Jan  2 09:05:59 2051 GMT");
    }

    #[test]
    fn both_ends_belong_to_the_second() {
        let moment = time(2026, 11, 22);
        let start = SystemTime::UNIX_EPOCH + moment.0.unix_duration();
        let (tick, second) = (Duration::from_nanos(1), Duration::from_secs(1));

        assert!(moment.is_after(start - tick) && !moment.is_after(start));
        assert!(!moment.is_over(start + second - tick) && moment.is_over(start + second));
        let before_1970 = SystemTime::UNIX_EPOCH - tick;
        assert!(moment.is_after(before_1970) && !moment.is_over(before_1970));
    }
}
