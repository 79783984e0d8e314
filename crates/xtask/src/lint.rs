//! `cargo xtask lint`: formatting, lints, documentation and dependencies, as continuous integration sees them.

use std::process::{Command, ExitCode};

use crate::cargo::cargo;
use crate::error::Error;
use crate::workspace::Workspace;
use crate::{dependencies, process};

/// Checks all, also the next if one fails.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode, Error> {
    let formatted = process::shown(&mut formatting(workspace))?.success();
    let clean = process::shown(&mut lints(workspace))?.success();
    let documented = process::shown(&mut documentation(workspace))?.success();
    let sound = dependencies::check(workspace)?;
    Ok(if formatted && clean && documented && sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `cargo fmt`, which shows what it would change.
pub(crate) fn formatting(workspace: &Workspace) -> Command {
    let mut command = cargo(workspace, "fmt");
    command.args(["--all", "--check"]);
    command
}

/// `cargo clippy` of everything, with warnings as errors.
pub(crate) fn lints(workspace: &Workspace) -> Command {
    let mut command = cargo(workspace, "clippy");
    command.args(["--workspace", "--all-targets", "--", "--deny", "warnings"]);
    command
}

/// `cargo doc` of our own crates, private items too: a link that leads nowhere is an error.
pub(crate) fn documentation(workspace: &Workspace) -> Command {
    let mut command = cargo(workspace, "doc");
    command
        .args(["--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-Dwarnings");
    command
}
