//! Points in time as text, in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-01-31T12:00:00.123Z`.
pub(crate) fn milliseconds(time: SystemTime) -> String {
    let (seconds, rest) = split(time);
    format!("{seconds}.{:03}Z", rest.subsec_millis())
}

/// `2026-01-31T12:00:00.123456789+00:00`.
pub(crate) fn nanoseconds(time: SystemTime) -> String {
    let (seconds, rest) = split(time);
    format!("{seconds}.{:09}+00:00", rest.subsec_nanos())
}

/// The time that is so many milliseconds after the beginning of 1970.
pub(crate) fn of_milliseconds(milliseconds: u64) -> SystemTime {
    let since_epoch = Duration::from_millis(milliseconds);
    UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
}

/// The whole seconds of `time`, such as `2026-01-31T12:00:00`, and the rest.
fn split(time: SystemTime) -> (String, Duration) {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = image::rfc3339(u32::try_from(since_epoch.as_secs()).unwrap_or(u32::MAX));
    text.truncate("2026-01-31T12:00:00".len());
    (text, since_epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_form_that_awss_have() {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000, 12_345_678);

        assert_eq!(milliseconds(time), "2023-11-14T22:13:20.012Z");
        assert_eq!(nanoseconds(time), "2023-11-14T22:13:20.012345678+00:00");
        assert_eq!(
            milliseconds(of_milliseconds(1_700_000_000_012)),
            milliseconds(time)
        );
    }
}
