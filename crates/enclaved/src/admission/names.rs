//! Enclave names. A taken name is not an error: the new enclave is called `name_1`, `name_2`, …, as on AWS.

use api::{ErrorCode, Failure};

/// The longest name a client may ask for, in bytes. AWS has no limit; this one bounds every reply and log line.
pub const MAX_LEN: usize = 1024;

/// Refuses a name that is too long to be listed.
///
/// # Errors
/// E03.
pub fn check(wanted: &str) -> Result<(), Failure> {
    if wanted.len() > MAX_LEN {
        return Err(Failure::new(
            ErrorCode::InvalidArgument,
            format!(
                "The enclave name has {} bytes; at most {MAX_LEN} are allowed.",
                wanted.len()
            ),
        ));
    }
    Ok(())
}

/// `wanted`, or `wanted` with the lowest suffix for which `is_taken` is false.
pub fn choose(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let suffixed = (1_u64..).map(|suffix| format!("{wanted}_{suffix}"));
    std::iter::once(wanted.to_owned())
        .chain(suffixed)
        .find(|name| !is_taken(name))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_gets_the_lowest_free_suffix() {
        let taken = ["hello", "hello_1", "hello_3"];
        let is_taken = |name: &str| taken.contains(&name);

        assert_eq!(choose("hello", is_taken), "hello_2");
        assert_eq!(choose("hello_1", is_taken), "hello_1_1");
        assert_eq!(choose("other", is_taken), "other");
    }

    #[test]
    fn a_name_that_would_flood_every_listing_is_refused() {
        assert!(check(&"n".repeat(MAX_LEN)).is_ok());
        assert_eq!(
            check(&"n".repeat(MAX_LEN + 1)).unwrap_err().code,
            ErrorCode::InvalidArgument
        );
    }
}
