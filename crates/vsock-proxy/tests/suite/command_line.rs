//! Arguments, files, exit codes: AWS's.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::proxy::program;

/// Exit code, standard output, standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What it says if it cannot start.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(program().args(arguments));
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{arguments:?}: {stderr}");
    let said = stderr
        .strip_prefix("Error: \"")
        .and_then(|rest| rest.strip_suffix("\"\n"));
    said.unwrap_or_else(|| panic!("{arguments:?}: {stderr}"))
        .to_owned()
}

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn version_and_help_are_exit_code_0() {
    for flag in ["-V", "--version"] {
        let said = run(program().arg(flag));
        assert_eq!(said, (Some(0), "Vsock-TCP proxy 1.0.2\n".into(), String::new()));
    }
    for flag in ["-h", "--help"] {
        let (code, stdout, stderr) = run(program().arg(flag));
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        for part in [
            "-4, --ipv4",
            "-6, --ipv6",
            "-w, --num_workers",
            "--config",
            "<local_port>|[local_port]",
        ] {
            assert!(
                part.split('|').any(|part| stdout.contains(part)),
                "{part}: {stdout}"
            );
        }
    }
}

#[test]
fn usage_errors_are_exit_code_2() {
    for arguments in [
        &[][..],
        &["8000"],
        &["8000", "127.0.0.1"],
        &["8000", "127.0.0.1", "9000", "more"],
        &["-4", "-6", "8000", "127.0.0.1", "9000"],
        &["--unknown", "8000", "127.0.0.1", "9000"],
        &["--targets", "file", "8000", "127.0.0.1", "9000"],
        &["8000", "127.0.0.1", "9000", "--num_workers"],
    ] {
        let (code, stdout, stderr) = run(program().args(arguments));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("--help"),
            "{arguments:?}: {stderr}"
        );
    }
}

#[test]
fn wrong_ports_and_workers_are_said_in_the_words_of_aws() {
    for (arguments, expected) in [
        (&["port", "127.0.0.1", "9000"][..], "Local port is not valid"),
        (&["4294967296", "127.0.0.1", "9000"], "Local port is not valid"),
        (&["8000", "127.0.0.1", "65536"], "Remote port is not valid"),
        (
            &["8000", "127.0.0.1", "9000", "-w", "many"],
            "Number of workers is not valid",
        ),
        (
            &["-w", "0", "8000", "127.0.0.1", "9000"],
            "Number of workers must not be 0",
        ),
    ] {
        assert_eq!(refused(arguments), expected);
    }
}

#[test]
fn an_allowlist_that_cannot_be_used_or_lacks_the_server_is_said_before_anything_is_listened_at() {
    let directory = tempfile::tempdir().unwrap();
    let file = |text: &str| file(directory.path(), "allowlist.yaml", text);
    for (text, expected) in [
        ("", "No allowlist field"),
        ("allowlist: [", "Bad yaml format"),
        ("allowlist: [{port: 9000}]", "No address field"),
        (
            "allowlist: [{address: 127.0.0.1}]",
            "No port field or invalid type",
        ),
        ("allowlist: []", "The given address and port are not allowed"),
        (
            "allowlist: [{address: 127.0.0.1, port: 9001}]",
            "The given address and port are not allowed",
        ),
        (
            "allowlist: [{address: 127.0.0.2, port: 9000}]",
            "The given address and port are not allowed",
        ),
        (
            "allowlist: [{address: absent.invalid, port: 9000}]",
            "The given address and port are not allowed",
        ),
    ] {
        let said = refused(&["8000", "127.0.0.1", "9000", "--config", &file(text)]);
        assert!(
            said.starts_with("Error at checking the allowlist: "),
            "{text}: {said}"
        );
        assert!(said.contains(expected), "{text}: {said}");
    }
    let absent = directory.path().join("absent.yaml");
    let said = refused(&["8000", "127.0.0.1", "9000", "--config", absent.to_str().unwrap()]);
    assert!(said.contains("Could not open the file"), "{said}");
}

#[test]
fn a_wrong_target_or_one_server_that_is_not_allowed_stops_all_targets() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let targets = |list: &str| {
        let list = list.replace("SOCKET", socket.to_str().unwrap());
        let text = format!("allowlist: [{{address: 127.0.0.1, port: 9000}}]\ntargets: {list}\n");
        file(directory.path(), "targets.yaml", &text)
    };
    let good = "{local_socket: SOCKET, remote_addr: 127.0.0.1, remote_port: 9000}";
    for (list, expected) in [
        ("[]".to_owned(), "it has no targets"),
        (format!("[{good}, {{local_port: 1}}]"), "target 2 is neither"),
        (
            format!("[{good}, {{local_port: 8001, remote_addr: 127.0.0.1, remote_port: 9001}}]"),
            "127.0.0.1:9001: The given address and port are not allowed",
        ),
    ] {
        let file = targets(&list);
        let said = refused(&["--targets", &file, "--config", &file]);
        assert!(said.contains(expected), "{list}: {said}");
    }
}

#[test]
fn somewhere_that_others_listen_at_already_is_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let inbound = format!(
        "targets: [{{inbound: '{}', enclave_cid: 16, enclave_port: 1}}]",
        taken.local_addr().unwrap()
    );
    // What is no socket is not removed.
    let no_socket = file(directory.path(), "no-socket", "kept");
    let outbound = format!(
        "allowlist: [{{address: 127.0.0.1, port: 1}}]\n\
         targets: [{{local_socket: {no_socket}, remote_addr: 127.0.0.1, remote_port: 1}}]"
    );
    for configuration in [inbound, outbound] {
        let file = file(directory.path(), "targets.yaml", &configuration);
        let said = refused(&["--targets", &file, "--config", &file]);
        assert!(
            said.starts_with("Could not listen for connections: Could not bind to "),
            "{said}"
        );
    }
    assert_eq!(std::fs::read_to_string(&no_socket).unwrap(), "kept");
}
