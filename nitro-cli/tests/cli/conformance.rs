//! What AWS's nitro-cli 1.5.0 was seen to do without any enclave: exit code, standard output, standard error of 38 kinds of
//! command lines. Scripts rely on each of these.
//!
//! A row has the number of its kind. Where the daemon is asked, it gives the answer for a machine without enclaves, or the one
//! that brings the kind about. Where something is different here on purpose, the row says why, and what happens instead.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use api::{ErrorCode, Failure, Reply};
use serde_json::{Value, json};
use test_signer::{Curve, TestSigner};

use crate::build_enclave;
use crate::fake_daemon::{FakeDaemon, Scene};
use crate::images;
use crate::program::Program;

/// One command line and what it leaves.
struct Row {
    number: u8,
    line: &'static str,
    /// Variables of its environment; paths are relative to the directory that the images are in.
    variables: &'static [(&'static str, &'static str)],
    daemon: Daemon,
    code: i32,
    stdout: Stdout,
    stderr: Stderr,
    /// Why it is not as on AWS.
    differs: Option<&'static str>,
}

enum Daemon {
    /// There is none.
    None,
    /// It says this.
    Says(Reply),
    /// It dies before it has said anything.
    Dies,
}

enum Stdout {
    Empty,
    Exactly(&'static str),
    /// Text for people.
    Text,
    /// JSON with this value at this place.
    Json(&'static str, Value),
    /// JSON with something at this place.
    Has(&'static str),
}

enum Stderr {
    Empty,
    Exactly(&'static str),
    /// Text that begins so.
    Begins(&'static str),
    /// These `[ ENN ]` blocks, and this text somewhere.
    Blocks(&'static [&'static str], &'static str),
}

fn plain(number: u8, line: &'static str, code: i32, stdout: Stdout, stderr: Stderr) -> Row {
    Row {
        number,
        line,
        variables: &[],
        daemon: Daemon::None,
        code,
        stdout,
        stderr,
        differs: None,
    }
}

/// The parser refuses the line.
fn refused(number: u8, line: &'static str) -> Row {
    plain(number, line, 2, Stdout::Empty, Stderr::Begins("error: "))
}

/// The command fails on its own account.
fn fails(number: u8, line: &'static str, code: i32, block: &'static [&'static str]) -> Row {
    plain(number, line, code, Stdout::Empty, Stderr::Blocks(block, ""))
}

/// The daemon finds nothing to do.
fn nothing_runs(number: u8, line: &'static str, answer: Reply) -> Row {
    Row {
        daemon: Daemon::Says(answer),
        ..plain(number, line, 0, Stdout::Exactly("[]\n"), Stderr::Empty)
    }
}

/// The daemon declines for the reason that has this number.
fn declined(number: u8, line: &'static str, reason: ErrorCode, block: &'static [&'static str]) -> Row {
    let answer = Reply::Error(Failure::new(reason, "The reason"));
    Row {
        daemon: Daemon::Says(answer),
        ..fails(number, line, i32::from(reason.number()), block)
    }
}

fn command_line_rows() -> Vec<Row> {
    vec![
        plain(
            1,
            "",
            2,
            Stdout::Empty,
            Stderr::Begins("Build, run and watch enclaves"),
        ),
        plain(2, "--help", 0, Stdout::Text, Stderr::Empty),
        plain(2, "help run-enclave", 0, Stdout::Text, Stderr::Empty),
        plain(
            2,
            "--version",
            0,
            Stdout::Exactly("Nitro CLI 1.5.0\n"),
            Stderr::Empty,
        ),
        refused(3, "bogus"),
        refused(5, "describe-enclaves extra"),
        refused(7, "terminate-enclave"),
        refused(7, "console"),
        refused(17, "explain"),
        refused(26, "sign-eif --eif-path good.eif --private-key missing"),
        refused(26, "sign-eif --eif-path good.eif --signing-certificate missing"),
        refused(
            26,
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --cpu-ids 1",
        ),
        refused(26, "run-enclave --config both.json --memory 512"),
        refused(26, "run-enclave --eif-path good.eif --memory 512 --cpu-count -3"),
        refused(
            26,
            "run-enclave --eif-path good.eif --memory 512 --cpu-ids 1 --cpu-ids 3",
        ),
        refused(
            26,
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --debug-mode=true",
        ),
        refused(26, "run-enclave --eif-path good.eif --mem 512 --cpu-count 2"),
    ]
}

/// Lines that the parser lets pass.
fn value_rows() -> Vec<Row> {
    vec![
        fails(
            27,
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2z",
            3,
            &["E03"],
        ),
        fails(
            27,
            "run-enclave --eif-path good.eif --memory 256mb --cpu-count 2",
            3,
            &["E03"],
        ),
        fails(
            27,
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --enclave-cid 3",
            3,
            &["E03"],
        ),
        fails(
            27,
            "run-enclave --eif-path good.eif --memory 512 --cpu-count 2 --enclave-cid u",
            3,
            &["E03"],
        ),
        fails(
            27,
            "run-enclave --eif-path good.eif --memory 512 --cpu-ids 1,3",
            3,
            &["E03"],
        ),
        fails(28, "run-enclave --config missing.json", 19, &["E19"]),
        fails(28, "run-enclave --config junk.eif", 17, &["E17"]),
        fails(28, "run-enclave --config mistyped.json", 17, &["E17"]),
        fails(28, "run-enclave --config both.json", 2, &["E02"]),
        fails(28, "run-enclave --config neither.json", 1, &["E01"]),
        fails(
            37,
            "console --enclave-id i-1-enc2 --disconnect-timeout x",
            3,
            &["E03"],
        ),
    ]
}

fn enclave_rows() -> Vec<Row> {
    vec![
        nothing_runs(4, "describe-enclaves", Reply::Enclaves(vec![])),
        nothing_runs(4, "describe-enclaves --metadata", Reply::RunningImages(vec![])),
        nothing_runs(6, "terminate-enclave --all", Reply::Terminated(vec![])),
        declined(
            8,
            "terminate-enclave --enclave-id i-1-enc2",
            ErrorCode::SocketError,
            &["E11"],
        ),
        declined(
            8,
            "console --enclave-id i-1-enc2",
            ErrorCode::SocketError,
            &["E11"],
        ),
        declined(
            9,
            "terminate-enclave --enclave-name x",
            ErrorCode::EnclaveNaming,
            &["E58"],
        ),
        declined(9, "console --enclave-name x", ErrorCode::EnclaveNaming, &["E58"]),
        plain(
            29,
            "run-enclave --eif-path missing.eif --memory 512 --cpu-count 2",
            39,
            Stdout::Empty,
            Stderr::Blocks(&["E19", "E39"], "Failed connections: 1\n"),
        ),
        Row {
            daemon: Daemon::Says(Reply::Error(Failure::new(
                ErrorCode::IoctlFailure,
                "/dev/kvm: No such file or directory",
            ))),
            differs: Some("the driver's device is KVM here, and what is wrong with it is E29"),
            ..fails(
                29,
                "run-enclave --eif-path good.eif --memory 512 --cpu-count 2",
                39,
                &["E29", "E39"],
            )
        },
        plain(
            30,
            "run-enclave --eif-path missing.eif --memory 512 --cpu-count 2 --enclave-cid 0",
            39,
            Stdout::Empty,
            Stderr::Blocks(
                &["E19", "E39"],
                "The enclave CID will be auto-generated as the provided CID is 0\n[ E19 ]",
            ),
        ),
        declined(
            38,
            "console --enclave-name production",
            ErrorCode::ConsoleConnection,
            &["E44"],
        ),
    ]
}

/// AWS has a socket for each enclave in a directory, and a process behind each; here the daemon knows all of them.
fn process_rows() -> Vec<Row> {
    const ONE_SOCKET: &str = "there is one socket, the daemon's: what is in that directory, and whether it is there, is nothing \
                              to it, and nothing in it is deleted";
    const ONE_PROCESS: &str =
        "there is no process to answer for one enclave alone: the daemon answers for all or fails";
    let in_directory = |variables: &'static [(&'static str, &'static str)], row: Row| Row {
        variables,
        differs: Some(ONE_SOCKET),
        ..row
    };
    let missing = &[("NITRO_CLI_SOCKETS_PATH", "missing")];
    let stale = &[("NITRO_CLI_SOCKETS_PATH", "sockets")];
    vec![
        in_directory(
            missing,
            nothing_runs(10, "describe-enclaves", Reply::Enclaves(vec![])),
        ),
        in_directory(
            missing,
            nothing_runs(11, "terminate-enclave --all", Reply::Terminated(vec![])),
        ),
        in_directory(
            stale,
            nothing_runs(13, "describe-enclaves", Reply::Enclaves(vec![])),
        ),
        in_directory(
            stale,
            nothing_runs(14, "terminate-enclave --all", Reply::Terminated(vec![])),
        ),
        Row {
            differs: Some(ONE_PROCESS),
            ..declined(
                35,
                "describe-enclaves",
                ErrorCode::ProcessCommandNotExecuted,
                &["E38"],
            )
        },
        Row {
            daemon: Daemon::Dies,
            differs: Some(ONE_PROCESS),
            ..fails(36, "describe-enclaves", 39, &["E39"])
        },
    ]
}

fn explain_rows() -> Vec<Row> {
    vec![
        plain(
            15,
            "explain --error-code E26",
            0,
            Stdout::Empty,
            Stderr::Begins("[ E26 ] "),
        ),
        plain(
            16,
            "explain --error-code 26",
            0,
            Stdout::Empty,
            Stderr::Begins("No such error code 26"),
        ),
        Row {
            differs: Some("AWS has forgotten three of its own"),
            ..plain(
                16,
                "explain --error-code E57",
                0,
                Stdout::Empty,
                Stderr::Begins("[ E57 ] "),
            )
        },
    ]
}

fn image_rows() -> Vec<Row> {
    vec![
        plain(
            18,
            "describe-eif --eif-path good.eif",
            0,
            Stdout::Json("/CheckCRC", true.into()),
            Stderr::Empty,
        ),
        plain(
            18,
            "describe-eif --eif-path flipped.eif",
            0,
            Stdout::Json("/CheckCRC", false.into()),
            Stderr::Empty,
        ),
        plain(
            18,
            "describe-eif --eif-path trailing.eif",
            0,
            Stdout::Json("/CheckCRC", true.into()),
            Stderr::Empty,
        ),
        fails(19, "describe-eif --eif-path junk.eif", 35, &["E35"]),
        fails(19, "describe-eif --eif-path missing.eif", 35, &["E35"]),
        fails(19, "describe-eif --eif-path lacking-a-key.eif", 35, &["E35"]),
        fails(20, "describe-eif --eif-path array.eif", 17, &["E17"]),
        plain(21, "pcr --input junk.eif", 0, Stdout::Has("/PCR"), Stderr::Empty),
        plain(
            21,
            "pcr --signing-certificate cert.pem",
            0,
            Stdout::Has("/PCR8"),
            Stderr::Empty,
        ),
        fails(22, "pcr --input missing", 19, &["E19"]),
        fails(22, "pcr --signing-certificate junk.eif", 57, &["E57"]),
        plain(
            23,
            "sign-eif --eif-path to-sign.eif --signing-certificate cert.pem --private-key key.pem",
            0,
            Stdout::Has("/Measurements/PCR8"),
            Stderr::Exactly("Enclave Image successfully signed.\n"),
        ),
        fails(24, "sign-eif --eif-path good.eif", 60, &["E60"]),
        fails(
            24,
            "sign-eif --eif-path good.eif --signing-certificate missing --private-key missing",
            60,
            &["E60"],
        ),
        fails(
            25,
            "sign-eif --signing-certificate missing --private-key missing",
            1,
            &["E01"],
        ),
    ]
}

fn environment_rows() -> Vec<Row> {
    let unwritable = |line| Row {
        variables: &[("NITRO_CLI_LOGS_PATH", "junk.eif")],
        ..plain(
            12,
            line,
            19,
            Stdout::Empty,
            Stderr::Begins(
                "[ E19 ] File operation failure. Cannot open the log `junk.eif/nitro_enclaves.log`",
            ),
        )
    };
    let nothing_built = "build-enclave --docker-uri ./junk.eif --output-file out.eif";
    vec![
        unwritable("describe-enclaves"),
        unwritable("describe-eif --eif-path good.eif"),
        unwritable("explain --error-code E26"),
        Row {
            variables: &[("BACKTRACE", "1")],
            ..plain(
                31,
                "pcr --input missing",
                19,
                Stdout::Empty,
                Stderr::Blocks(&["E19"], "\n\nBacktrace:\n"),
            )
        },
        plain(
            32,
            "build-enclave --docker-uri ./hello --output-file out.eif",
            19,
            Stdout::Empty,
            Stderr::Blocks(&["E19"], "Start building the Enclave Image...\n[ E19 ]"),
        ),
        Row {
            variables: &[("NITRO_CLI_BLOBS", "blobs")],
            differs: Some("a build leaves no files behind, so it needs neither HOME nor NITRO_CLI_ARTIFACTS"),
            ..plain(
                33,
                "build-enclave --docker-uri ./hello --output-file built.eif",
                0,
                Stdout::Has("/Measurements/PCR0"),
                Stderr::Begins("Start building the Enclave Image...\n"),
            )
        },
        Row {
            variables: &[("NITRO_CLI_BLOBS", "blobs")],
            differs: Some(
                "Docker is not asked; what cannot be built is E48 all the same, and leaves no empty output",
            ),
            ..plain(
                34,
                nothing_built,
                48,
                Stdout::Empty,
                Stderr::Blocks(&["E48"], "Start building the Enclave Image...\n[ E48 ]"),
            )
        },
    ]
}

fn write_files(directory: &Path) {
    let good = images::unsigned(None);
    let mut flipped = good.clone();
    flipped[0x220] ^= 1;
    let trailing = [&good[..], b"xx"].concat();
    let array = images::unsigned(Some(json!([1])));
    let lacking_a_key = images::replace(&good, b"\"BuildTime\"", b"\"BuildTame\"");
    let files: [(&str, &[u8]); 7] = [
        ("good.eif", &good),
        ("to-sign.eif", &good),
        ("flipped.eif", &flipped),
        ("trailing.eif", &trailing),
        ("array.eif", &array),
        ("lacking-a-key.eif", &lacking_a_key),
        ("junk.eif", b"junk"),
    ];
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
    build_enclave::furnish(directory);
    let signer = TestSigner::new(Curve::P384);
    fs::write(directory.join("cert.pem"), signer.certificate_pem).unwrap();
    fs::write(directory.join("key.pem"), signer.key_pem).unwrap();
    write_configurations(directory);
    // A socket that nobody listens on any more, and a file of somebody's.
    fs::create_dir(directory.join("sockets")).unwrap();
    drop(UnixListener::bind(directory.join("sockets/dead.sock")).unwrap());
    fs::write(directory.join("sockets/notes.txt"), "").unwrap();
}

fn write_configurations(directory: &Path) {
    let files = [
        (
            "mistyped.json",
            json!({"eif_path": "good.eif", "memory_mib": "512", "cpu_count": 2}),
        ),
        (
            "both.json",
            json!({"eif_path": "good.eif", "memory_mib": 512, "cpu_count": 2, "cpu_ids": [1]}),
        ),
        ("neither.json", json!({"eif_path": "good.eif", "memory_mib": 512})),
    ];
    for (name, configuration) in files {
        fs::write(directory.join(name), configuration.to_string()).unwrap();
    }
}

/// Runs the row's command and asserts what it leaves.
fn hold(row: Row, directory: &Path) {
    let why = row.differs.map_or("as AWS's".to_owned(), |why| {
        format!("not as AWS's, because {why}")
    });
    let label = format!("{}: nitro-cli {} ({why})", row.number, row.line);
    let daemon = match row.daemon {
        Daemon::None => None,
        Daemon::Says(answer) => Some(FakeDaemon::replying(vec![answer])),
        Daemon::Dies => Some(FakeDaemon::start(vec![Scene::asked(drop)])),
    };
    let mut program = Program::new(row.line.split_whitespace()).directory(directory);
    if let Some(daemon) = &daemon {
        program = program.daemon(daemon);
    }
    for (name, value) in row.variables {
        program = program.env(name, value);
    }

    let finished = program.run();

    assert_eq!(finished.code, row.code, "{label}: {finished:#?}");
    match row.stdout {
        Stdout::Empty => assert_eq!(finished.stdout, "", "{label}"),
        Stdout::Exactly(text) => assert_eq!(finished.stdout, text, "{label}"),
        Stdout::Text => assert!(
            finished.stdout.contains("Usage: nitro-cli"),
            "{label}: {finished:#?}"
        ),
        Stdout::Json(place, value) => assert_eq!(finished.json().pointer(place), Some(&value), "{label}"),
        Stdout::Has(place) => assert!(finished.json().pointer(place).is_some(), "{label}: {finished:#?}"),
    }
    match row.stderr {
        Stderr::Empty => assert_eq!(finished.stderr, "", "{label}"),
        Stderr::Exactly(text) => assert_eq!(finished.stderr, text, "{label}"),
        Stderr::Begins(text) => assert!(finished.stderr.starts_with(text), "{label}: {finished:#?}"),
        Stderr::Blocks(blocks, text) => {
            finished.assert_failed(row.code, blocks);
            assert!(finished.stderr.contains(text), "{label}: {finished:#?}");
        }
    }
    if let Some(daemon) = daemon {
        daemon.finish();
    }
}

#[test]
fn every_row_is_as_seen_on_aws_or_says_why_not() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path());
    let tables = [
        command_line_rows(),
        value_rows(),
        enclave_rows(),
        process_rows(),
        explain_rows(),
        image_rows(),
        environment_rows(),
    ];
    let mut numbers = BTreeSet::new();
    for row in tables.into_iter().flatten() {
        numbers.insert(row.number);
        hold(row, directory.path());
        assert!(
            !directory.path().join("out.eif").exists(),
            "after row {numbers:?}"
        );
    }
    assert!(numbers.into_iter().eq(1..=38), "every kind has a row");
    for foreign in ["dead.sock", "notes.txt"] {
        assert!(
            directory.path().join("sockets").join(foreign).exists(),
            "{foreign} is not ours"
        );
    }
}
