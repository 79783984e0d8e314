//! What AWS's nitro-cli 1.5.0 was seen to do with these command lines, without any enclave: exit code, standard output,
//! standard error. Scripts rely on each of these.
//!
//! A row whose command asks for an enclave's state gets the daemon's answer for a machine without enclaves.

use std::fs;
use std::path::Path;

use api::{ErrorCode, Failure, Reply};
use serde_json::{Value, json};

use crate::fake_daemon::FakeDaemon;
use crate::images;
use crate::program::Program;

/// One command line and what it leaves.
struct Row {
    line: &'static str,
    /// What the daemon says, if it is to be asked.
    daemon: Option<Reply>,
    code: i32,
    stdout: Stdout,
    stderr: Stderr,
}

enum Stdout {
    Empty,
    Exactly(&'static str),
    /// Text for people.
    Text,
    /// JSON with this value of `CheckCRC`.
    CheckCrc(bool),
}

enum Stderr {
    Empty,
    /// Text that begins so.
    Begins(&'static str),
    /// These `[ ENN ]` blocks, and this text somewhere.
    Blocks(&'static [&'static str], &'static str),
}

fn plain(line: &'static str, code: i32, stdout: Stdout, stderr: Stderr) -> Row {
    Row {
        line,
        daemon: None,
        code,
        stdout,
        stderr,
    }
}

/// The parser refuses the line.
fn refused(line: &'static str) -> Row {
    plain(line, 2, Stdout::Empty, Stderr::Begins("error: "))
}

/// The command fails on its own account.
fn fails(line: &'static str, code: i32, block: &'static [&'static str]) -> Row {
    plain(line, code, Stdout::Empty, Stderr::Blocks(block, ""))
}

/// The daemon finds nothing to do.
fn nothing_runs(line: &'static str, answer: Reply) -> Row {
    Row {
        daemon: Some(answer),
        ..plain(line, 0, Stdout::Exactly("[]\n"), Stderr::Empty)
    }
}

/// The daemon declines for the reason that has this number.
fn declined(line: &'static str, reason: ErrorCode, block: &'static [&'static str]) -> Row {
    let answer = Reply::Error(Failure::new(reason, "The reason"));
    Row {
        daemon: Some(answer),
        ..fails(line, i32::from(reason.number()), block)
    }
}

fn command_line_rows() -> Vec<Row> {
    vec![
        plain(
            "",
            2,
            Stdout::Empty,
            Stderr::Begins("Build, run and watch enclaves"),
        ),
        plain("--help", 0, Stdout::Text, Stderr::Empty),
        plain("help run-enclave", 0, Stdout::Text, Stderr::Empty),
        plain(
            "--version",
            0,
            Stdout::Exactly("Nitro CLI 1.5.0\n"),
            Stderr::Empty,
        ),
        refused("bogus"),
        refused("describe-enclaves extra"),
        refused("terminate-enclave"),
        refused("console"),
        refused("run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --cpu-ids 1"),
        refused("run-enclave --eif-path good.eif --memory 512 --cpu-count -3"),
        refused("run-enclave --eif-path good.eif --memory 512 --cpu-ids 1 --cpu-ids 3"),
        refused("run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --debug-mode=true"),
        refused("run-enclave --eif-path good.eif --mem 512 --cpu-count 2"),
        fails(
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2z",
            3,
            &["E03"],
        ),
        fails(
            "run-enclave --eif-path good.eif --memory 256mb --cpu-count 2",
            3,
            &["E03"],
        ),
        fails(
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --enclave-cid 3",
            3,
            &["E03"],
        ),
        fails(
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --enclave-cid u",
            3,
            &["E03"],
        ),
        fails(
            "run-enclave --eif-path good.eif --memory 512 --cpu-ids 1,3",
            3,
            &["E03"],
        ),
        fails(
            "console --enclave-id i-1-enc2 --disconnect-timeout x",
            3,
            &["E03"],
        ),
    ]
}

fn enclave_rows() -> Vec<Row> {
    vec![
        nothing_runs("describe-enclaves", Reply::Enclaves(vec![])),
        nothing_runs("terminate-enclave --all", Reply::Terminated(vec![])),
        declined(
            "terminate-enclave --enclave-id i-1-enc2",
            ErrorCode::SocketError,
            &["E11"],
        ),
        declined("console --enclave-id i-1-enc2", ErrorCode::SocketError, &["E11"]),
        declined(
            "terminate-enclave --enclave-name x",
            ErrorCode::EnclaveNaming,
            &["E58"],
        ),
        declined("console --enclave-name x", ErrorCode::EnclaveNaming, &["E58"]),
        declined(
            "console --enclave-name production",
            ErrorCode::ConsoleConnection,
            &["E44"],
        ),
        plain(
            "run-enclave --eif-path missing.eif --memory 512 --cpu-count 2",
            39,
            Stdout::Empty,
            Stderr::Blocks(&["E19", "E39"], "Failed connections: 1\n"),
        ),
        plain(
            "run-enclave --eif-path missing.eif --memory 512 --cpu-count 2 --enclave-cid 0",
            39,
            Stdout::Empty,
            Stderr::Blocks(
                &["E19", "E39"],
                "The enclave CID will be auto-generated as the provided CID is 0\n[ E19 ]",
            ),
        ),
    ]
}

fn image_rows() -> Vec<Row> {
    vec![
        plain(
            "describe-eif --eif-path good.eif",
            0,
            Stdout::CheckCrc(true),
            Stderr::Empty,
        ),
        plain(
            "describe-eif --eif-path flipped.eif",
            0,
            Stdout::CheckCrc(false),
            Stderr::Empty,
        ),
        plain(
            "describe-eif --eif-path trailing.eif",
            0,
            Stdout::CheckCrc(true),
            Stderr::Empty,
        ),
        fails("describe-eif --eif-path junk.eif", 35, &["E35"]),
        fails("describe-eif --eif-path missing.eif", 35, &["E35"]),
        fails("describe-eif --eif-path lacking-a-key.eif", 35, &["E35"]),
        fails("describe-eif --eif-path array.eif", 17, &["E17"]),
        fails("pcr --input missing", 19, &["E19"]),
        fails("pcr --signing-certificate junk.eif", 57, &["E57"]),
        fails("sign-eif --eif-path good.eif", 60, &["E60"]),
        fails(
            "sign-eif --eif-path good.eif --signing-certificate missing --private-key missing",
            60,
            &["E60"],
        ),
        fails(
            "sign-eif --signing-certificate missing --private-key missing",
            1,
            &["E01"],
        ),
        refused("sign-eif --eif-path good.eif --private-key missing"),
        plain(
            "build-enclave --docker-uri rootfs --output-file out.eif",
            19,
            Stdout::Empty,
            Stderr::Blocks(&["E19"], "Start building the Enclave Image...\n[ E19 ]"),
        ),
    ]
}

fn write_images(directory: &Path) {
    let good = images::unsigned(None);
    let mut flipped = good.clone();
    flipped[0x220] ^= 1;
    let trailing = [&good[..], b"xx"].concat();
    let array = images::unsigned(Some(json!([1])));
    let lacking_a_key = images::replace(&good, b"\"BuildTime\"", b"\"BuildTame\"");
    let files: [(&str, &[u8]); 6] = [
        ("good.eif", &good),
        ("flipped.eif", &flipped),
        ("trailing.eif", &trailing),
        ("array.eif", &array),
        ("lacking-a-key.eif", &lacking_a_key),
        ("junk.eif", b"junk"),
    ];
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
    fs::create_dir(directory.join("rootfs")).unwrap();
}

#[test]
fn every_row_is_as_seen_on_aws() {
    let directory = tempfile::tempdir().unwrap();
    write_images(directory.path());
    for row in [command_line_rows(), enclave_rows(), image_rows()]
        .into_iter()
        .flatten()
    {
        let line = row.line;
        let daemon = row.daemon.map(|answer| FakeDaemon::replying(vec![answer]));
        let program = Program::new(line.split_whitespace()).directory(directory.path());

        let finished = match &daemon {
            Some(daemon) => program.daemon(daemon).run(),
            None => program.run(),
        };

        assert_eq!(finished.code, row.code, "{line}: {finished:#?}");
        match row.stdout {
            Stdout::Empty => assert_eq!(finished.stdout, "", "{line}"),
            Stdout::Exactly(text) => assert_eq!(finished.stdout, text, "{line}"),
            Stdout::Text => assert!(
                finished.stdout.contains("Usage: nitro-cli"),
                "{line}: {finished:#?}"
            ),
            Stdout::CheckCrc(crc_ok) => {
                let described: Value = serde_json::from_str(&finished.stdout).unwrap();
                assert_eq!(described["CheckCRC"], crc_ok, "{line}");
            }
        }
        match row.stderr {
            Stderr::Empty => assert_eq!(finished.stderr, "", "{line}"),
            Stderr::Begins(text) => assert!(finished.stderr.starts_with(text), "{line}: {finished:#?}"),
            Stderr::Blocks(blocks, text) => {
                finished.assert_failed(row.code, blocks);
                assert!(finished.stderr.contains(text), "{line}: {finished:#?}");
            }
        }
        if let Some(daemon) = daemon {
            daemon.finish();
        }
        assert!(!directory.path().join("out.eif").exists(), "{line}");
    }
}
