//! `doctor`: whether this machine can run enclaves and this user may, each point with the command that mends it.
//!
//! [`checks`] looks at the machine, below a root directory that tests put elsewhere; [`daemon`] asks the daemon. Nothing here
//! changes anything. What keeps every enclave from running is a failure, and ends the command with 1; what takes something away
//! from some is a warning.

mod checks;
mod daemon;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::arguments::Doctor;
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;

/// What has been found about one thing.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Finding {
    /// What was looked at, in a word.
    check: &'static str,
    status: Status,
    /// What was found.
    detail: String,
    /// The command that mends it, if there is something to mend.
    remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Enclaves run, but with less than they could have.
    Warning,
    /// No enclave can run, or not for this user.
    Failed,
    /// This user cannot see it.
    Unknown,
}

impl Status {
    /// As wide as each of them.
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok     ",
            Self::Warning => "warning",
            Self::Failed => "failed ",
            Self::Unknown => "unknown",
        }
    }
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Ok,
            detail: detail.into(),
            remedy: None,
        }
    }

    fn wrong(
        check: &'static str,
        status: Status,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            status,
            detail: detail.into(),
            remedy: Some(remedy.into()),
        }
    }
}

pub(super) fn execute(options: &Doctor, environment: &Environment) -> Result<(), CommandError> {
    let root = Path::new("/");
    let mut findings = vec![
        checks::kvm(root),
        checks::hugepages(root),
        checks::control_groups(root),
        checks::vhost_vsock(root),
        checks::group(root, &checks::User::current()),
        checks::clock(std::time::SystemTime::now()),
        checks::blobs(&environment.blobs),
        checks::logs(&environment.logs),
    ];
    findings.extend(daemon::examine(&environment.daemon_socket));
    if options.json {
        output::print_json(&findings)?;
    } else {
        output::print_text(&in_words(&findings))?;
    }
    let failed = findings.iter().filter(|finding| finding.status == Status::Failed);
    match failed.count() {
        0 => Ok(()),
        count => Err(CommandError::Unfit(count)),
    }
}

/// A line for each finding, and below it the remedy.
fn in_words(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding {
        check,
        status,
        detail,
        remedy,
    } in findings
    {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {check}: {detail}", status.label());
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "           {remedy}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_followed_by_what_mends_it() {
        let findings = [
            Finding::ok("clock", "it is 2026"),
            Finding::wrong(
                "kvm",
                Status::Failed,
                "there is no /dev/kvm",
                "sudo modprobe kvm_intel",
            ),
        ];

        assert_eq!(
            in_words(&findings),
            "ok       clock: it is 2026\n\
             failed   kvm: there is no /dev/kvm\n           sudo modprobe kvm_intel\n"
        );
    }
}
