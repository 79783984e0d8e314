//! Seconds since 1970 as a date.

/// RFC 3339 in UTC, as AWS's tools write it: `2024-01-31T12:00:00+00:00`.
pub fn rfc3339(seconds: u32) -> String {
    let (days, second) = (seconds / 86400, seconds % 86400);
    let (mut year, mut day) = (1970, days);
    while day >= days_of_year(year) {
        day -= days_of_year(year);
        year += 1;
    }
    let february = if days_of_year(year) == 366 { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}+00:00",
        day + 1
    )
}

/// Whether a text looks like a time of RFC 3339. The fields may be out of range; nobody calculates with them.
pub(crate) fn is_rfc3339(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_digit() || b"-:.+TZtz".contains(&byte);
    let digits = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18];
    let bytes = text.as_bytes();
    (20..=40).contains(&bytes.len())
        && bytes.iter().all(|byte| is_allowed(*byte))
        && digits.iter().all(|at| bytes[*at].is_ascii_digit())
}

fn days_of_year(year: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if is_leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn agrees_with_gnu_date() {
        let leap_day = 951_782_400;
        for seconds in [
            0,
            1,
            86_399,
            86_400,
            leap_day - 1,
            leap_day,
            leap_day + 86_400,
            1_735_689_599,
            4_107_542_399,
            u32::MAX,
        ] {
            let output = Command::new("date")
                .args(["--utc", "--iso-8601=seconds", &format!("--date=@{seconds}")])
                .output()
                .unwrap();
            assert_eq!(rfc3339(seconds), String::from_utf8(output.stdout).unwrap().trim());
        }
    }

    #[test]
    fn times_are_recognised() {
        for good in [
            "2024-02-29T12:00:00Z",
            "2024-02-29T12:00:00.123456789Z",
            "1970-01-01T00:00:00+00:00",
            &rfc3339(1),
        ] {
            assert!(is_rfc3339(good), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2024-02-29",
            "2024-02-29T12:00:00Z\n",
            "2024-02-29T12:00:00 \u{b5}s",
        ] {
            assert!(!is_rfc3339(bad), "{bad}");
        }
    }
}
