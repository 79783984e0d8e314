//! Runs cargo, and finds what it has built in its JSON messages (the Cargo book, "External tools").

use std::env;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::workspace::Workspace;

/// Where programs for parent instances and enclaves are built for. Naming it keeps build scripts and procedural macros,
/// which run on the host, from being linked statically.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// cargo in the checkout.
pub(crate) fn cargo(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand).current_dir(workspace.root());
    command
}

/// Makes `command` build programs in release mode that need no C library where they run.
pub(crate) fn release_static(command: &mut Command) -> &mut Command {
    command
        .args(["--release", "--target", TARGET])
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        )
        // Either of these would make cargo ignore the one above.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
}

/// An executable that cargo has built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    /// Name of the binary, test or library.
    pub(crate) name: String,
    /// `bin`, `test` or `lib`.
    pub(crate) kind: String,
    /// Whether it is a test harness.
    pub(crate) is_test: bool,
    /// Its main source file.
    pub(crate) source: PathBuf,
    /// Directory of the package, in which cargo runs tests.
    pub(crate) package: PathBuf,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// The executables in the output of a build with `--message-format json`.
pub(crate) fn executables(messages: &str) -> Vec<Executable> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|message| executable(&message))
        .collect()
}

fn executable(message: &Value) -> Option<Executable> {
    let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
    if text("/reason") != Some("compiler-artifact") {
        return None;
    }
    Some(Executable {
        name: text("/target/name")?.to_owned(),
        kind: text("/target/kind/0")?.to_owned(),
        is_test: message.pointer("/profile/test").and_then(Value::as_bool)?,
        source: text("/target/src_path")?.into(),
        package: PathBuf::from(text("/manifest_path")?).parent()?.to_owned(),
        path: text("/executable")?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"
{"reason":"compiler-artifact","manifest_path":"/w/vmm/Cargo.toml","target":{"kind":["lib"],"name":"enclave_vmm","src_path":"/w/vmm/src/lib.rs"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/vmm/Cargo.toml","target":{"kind":["bin"],"name":"enclave-vmm","src_path":"/w/vmm/src/main.rs"},"profile":{"test":false},"executable":"/t/release/enclave-vmm"}
{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{"kind":["test"],"name":"vsock","src_path":"/w/tests/tests/vsock.rs"},"profile":{"test":true},"executable":"/t/release/deps/vsock-1f"}
not JSON
{"reason":"build-finished","success":true}
"#;

    #[test]
    fn executables_are_found_among_messages() {
        let found = executables(MESSAGES);
        let short: Vec<_> = found
            .iter()
            .map(|e| (e.name.as_str(), e.kind.as_str(), e.is_test))
            .collect();
        assert_eq!(short, [("enclave-vmm", "bin", false), ("vsock", "test", true)]);
        assert_eq!(found[1].package, PathBuf::from("/w/tests"));
        assert_eq!(found[1].path, PathBuf::from("/t/release/deps/vsock-1f"));
    }
}
