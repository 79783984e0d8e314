//! Option values that AWS's nitro-cli checks itself, with an `[ E03 ]` error, instead of leaving them to its parser.
//!
//! Each function takes the text after the option and returns the number, or a failure that names the option, the
//! text and what would be right.

use api::{ErrorCode, Failure, PARENT_CID};
use attestation::{PCR_COUNT, PCR_LEN, Timestamp};

use crate::hex;

/// `--memory`: a whole number with an optional unit `M` (the default), `G` or `T`, in either case. The result is in MiB.
pub(crate) fn memory_mib(text: &str) -> Result<u64, Failure> {
    let (digits, mib_per_unit) = match text.char_indices().last() {
        Some((at, 'M' | 'm')) => (&text[..at], 1),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 10),
        Some((at, 'T' | 't')) => (&text[..at], 1 << 20),
        _ => (text, 1_u64),
    };
    whole_number(digits)
        .and_then(|number: u64| number.checked_mul(mib_per_unit))
        .ok_or_else(|| {
            invalid(
                "--memory",
                text,
                "a whole number of MiB, or one with the unit M, G or T, such as `512` or `2G`",
            )
        })
}

/// `--cpu-count`: how many CPUs. Whether there are as many is for the daemon to say.
pub(crate) fn cpu_count(text: &str) -> Result<u32, Failure> {
    whole_number(text).ok_or_else(|| invalid("--cpu-count", text, "a whole number of CPUs, such as `2`"))
}

/// `--cpu-ids`: the parent's CPU numbers, one per argument.
pub(crate) fn cpu_ids(texts: &[String]) -> Result<Vec<u32>, Failure> {
    texts
        .iter()
        .map(|text| {
            whole_number(text).ok_or_else(|| {
                invalid(
                    "--cpu-ids",
                    text,
                    "CPU numbers separated by spaces, such as `2 3`",
                )
            })
        })
        .collect()
}

/// `--enclave-cid`: a vsock CID, or `None` for `0`, which leaves the choice to the daemon.
///
/// 1 (loopback), 2 (the host, to Linux), 3 (the parent, to an enclave) and 2³² − 1 ("any") are never an enclave's.
pub(crate) fn enclave_cid(text: &str) -> Result<Option<u32>, Failure> {
    const EXPECTED: &str = "a number from 4 to 4294967294, or 0 to have one chosen";
    match whole_number::<u32>(text) {
        Some(0) => Ok(None),
        Some(1..=PARENT_CID | u32::MAX) | None => Err(invalid("--enclave-cid", text, EXPECTED)),
        Some(cid) => Ok(Some(cid)),
    }
}

/// `--disconnect-timeout`: seconds.
pub(crate) fn disconnect_timeout(text: &str) -> Result<u64, Failure> {
    whole_number(text).ok_or_else(|| {
        invalid(
            "--disconnect-timeout",
            text,
            "a whole number of seconds, such as `30`",
        )
    })
}

/// `--pcr`: an index and a value, such as `0=` and 96 hexadecimal digits.
pub(crate) fn pcr(text: &str) -> Result<(u8, [u8; PCR_LEN]), Failure> {
    let parts = text.split_once('=');
    parts
        .and_then(|(index, value)| {
            let index = whole_number(index).filter(|index| *index < PCR_COUNT)?;
            Some((index, hex::decode(value)?.try_into().ok()?))
        })
        .ok_or_else(|| {
            invalid(
                "--pcr",
                text,
                "an index from 0 to 31 and 96 hexadecimal digits, such as `0=0123...`",
            )
        })
}

/// Bytes in hexadecimal.
pub(crate) fn bytes(option: &str, text: &str) -> Result<Vec<u8>, Failure> {
    hex::decode(text).ok_or_else(|| invalid(option, text, "bytes in hexadecimal, such as `00ff`"))
}

/// `--max-age`: seconds.
pub(crate) fn seconds(text: &str) -> Result<u64, Failure> {
    whole_number(text).ok_or_else(|| invalid("--max-age", text, "a whole number of seconds, such as `60`"))
}

/// A point in time: RFC 3339 in UTC, or seconds since 1970.
pub(crate) fn time(option: &str, text: &str) -> Result<Timestamp, Failure> {
    whole_number(text)
        .map(Timestamp::from_secs)
        .or_else(|| text.parse().ok())
        .ok_or_else(|| {
            invalid(
                option,
                text,
                "a time such as `2026-01-31T12:00:00Z`, seconds since 1970, or `document`",
            )
        })
}

/// `text` as decimal digits and nothing else; `None` also if the number does not fit.
fn whole_number<N: std::str::FromStr>(text: &str) -> Option<N> {
    // `parse` alone would take a plus sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

fn invalid(option: &str, text: &str, expected: &str) -> Failure {
    Failure::new(
        ErrorCode::InvalidArgument,
        format!("The value `{text}` of `{option}` is not valid. Give {expected}."),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_takes_one_unit_letter_and_gives_mebibytes() {
        let cases = [
            ("512", 512),
            ("512M", 512),
            ("512m", 512),
            ("2G", 2048),
            ("2g", 2048),
            ("1T", 1 << 20),
            ("1t", 1 << 20),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, mib) in cases {
            assert_eq!(memory_mib(text).unwrap(), mib, "{text}");
        }
    }

    #[test]
    fn memory_that_is_no_number_of_mebibytes_is_e03_and_named() {
        let wrong = [
            "",
            "M",
            "256mb",
            "256 M",
            "-10",
            "+10",
            "1.5G",
            "VVV",
            "0x10",
            "17592186044416T",
            "18446744073709551616",
            "٣",
            "1é",
        ];
        for text in wrong {
            let failure = memory_mib(text).unwrap_err();

            assert_eq!(failure.code, ErrorCode::InvalidArgument, "{text}");
            assert!(
                failure.message.contains(&format!("`{text}` of `--memory`")),
                "{}",
                failure.message
            );
        }
    }

    #[test]
    fn a_cid_is_chosen_free_or_refused() {
        assert_eq!(enclave_cid("0").unwrap(), None);
        assert_eq!(enclave_cid("4").unwrap(), Some(4));
        assert_eq!(enclave_cid("16").unwrap(), Some(16));
        assert_eq!(enclave_cid("4294967294").unwrap(), Some(u32::MAX - 1));
        for reserved in ["1", "2", "3", "4294967295", "4294967296", "u", "", "-1", "0x10"] {
            assert_eq!(
                enclave_cid(reserved).unwrap_err().code,
                ErrorCode::InvalidArgument,
                "{reserved}"
            );
        }
    }

    #[test]
    fn cpu_numbers_are_separated_by_spaces_only() {
        assert_eq!(cpu_ids(&["3".into(), "1".into()]).unwrap(), [3, 1]);
        assert!(cpu_ids(&["1,3".into()]).unwrap_err().message.contains("`1,3`"));
        assert_eq!(cpu_count("0").unwrap(), 0);
        assert_eq!(cpu_count("2z").unwrap_err().code, ErrorCode::InvalidArgument);
    }

    proptest! {
        #[test]
        fn any_text_is_a_number_or_an_e03(text in ".*") {
            let codes = [
                memory_mib(&text).err(),
                cpu_count(&text).err(),
                enclave_cid(&text).err(),
                disconnect_timeout(&text).err(),
            ];
            for failure in codes.into_iter().flatten() {
                prop_assert_eq!(failure.code, ErrorCode::InvalidArgument);
            }
        }

        #[test]
        fn every_number_of_mebibytes_comes_back(mib in any::<u64>()) {
            prop_assert_eq!(memory_mib(&mib.to_string()).unwrap(), mib);
            prop_assert_eq!(memory_mib(&format!("{mib}M")).unwrap(), mib);
        }
    }
}
