//! The two files of vsock-proxy, which may be one.

use vsock_proxy::{Allowlist, Targets};

/// What is accepted is within its limits, and what is wrong with the rest is said in one line.
pub(crate) fn check(input: &[u8]) {
    let allowlist = Allowlist::parse(input);
    let targets = Targets::parse(input);
    for error in [allowlist.as_ref().err(), targets.as_ref().err()]
        .into_iter()
        .flatten()
    {
        let said = error.to_string();
        assert!(!said.is_empty() && !said.contains('\n'), "{said}");
    }
    if let Ok(Targets(targets)) = targets {
        assert!((1..=256).contains(&targets.len()));
    }
}
