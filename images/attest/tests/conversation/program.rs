//! `attest-client` as it is run, with an enclave behind a socket as the VMM offers it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use attest::enclave::receive_secret;
use attest::sealing::KeyPair;
use attest::{MAX_SECRET, PORT};
use attestation::Timestamp;

use crate::platform::Platform;

fn now() -> Timestamp {
    Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// The root that the client pins, and the digits of the PCR 0 that it expects.
struct Expected<'a> {
    root: &'a Platform,
    pcr0: &'a str,
}

/// Runs the client in `directory` with one enclave of `platform` behind `vsock.sock`; what the enclave was given.
fn with_enclave(directory: &Path, platform: &Platform, expected: &Expected<'_>) -> (Output, Option<Vec<u8>>) {
    let listener = UnixListener::bind(directory.join("vsock.sock")).unwrap();
    thread::scope(|scope| {
        let enclave = scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            // The client waits for the answer, so nothing but the line is taken.
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(line, format!("CONNECT {PORT}\n"));
            (&stream).write_all(b"OK 1024\n").unwrap();
            let keys = KeyPair::generate();
            let received = receive_secret(&mut &stream, &keys, |nonce| {
                Ok::<_, String>(platform.document(&platform.content(nonce, keys.public_key())))
            });
            received.ok().map(|secret| secret.bytes().to_vec())
        });
        let output = client(directory, expected);
        (output, enclave.join().unwrap())
    })
}

fn client(directory: &Path, expected: &Expected<'_>) -> Output {
    let root = expected.root.root().certificate().to_pem().unwrap();
    fs::write(directory.join("root.pem"), root).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_attest-client"));
    command.current_dir(directory);
    command.args([
        "--enclave-dir",
        ".",
        "--root",
        "root.pem",
        "--secret-file",
        "secret",
    ]);
    command.args(["--pcr0", expected.pcr0]).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_exit_code_says_whether_the_enclave_has_the_secret() {
    let (platform, other) = (Platform::made_at(now()), Platform::made_at(now()));
    // `PCR0`
    let pcr0 = "42".repeat(48);
    let run = |expected: &Expected<'_>| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("secret"), "only for you").unwrap();
        with_enclave(directory.path(), &platform, expected)
    };

    let (output, given) = run(&Expected {
        root: &platform,
        pcr0: &pcr0,
    });
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(
        stdout.starts_with("Verified i-0000000000000000-enc0000000000000001, document of 2"),
        "{stdout}"
    );
    assert!(
        stdout.ends_with("Z\nThe enclave has read the secret\n"),
        "{stdout}"
    );
    assert_eq!(given.as_deref(), Some(&b"only for you"[..]));

    let wrong_pcr0 = "43".repeat(48);
    for (root, pcr0, check) in [(&platform, &wrong_pcr0, "pcr"), (&other, &pcr0, "root")] {
        let (output, given) = run(&Expected { root, pcr0 });
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        let begin = format!("Refused, nothing was sent: the document does not pass the check \"{check}\": ");
        assert!(stderr.starts_with(&begin), "{stderr}");
        assert_eq!(text(&output.stdout), "");
        assert_eq!(given, None);
    }
}

#[test]
fn what_goes_wrong_before_a_conversation_is_told() {
    let platform = Platform::made_at(now());
    let expected = Expected {
        root: &platform,
        pcr0: &"42".repeat(48),
    };
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    let stderr = || {
        let output = client(directory.path(), &expected);
        assert_eq!(output.status.code(), Some(2));
        text(&output.stderr).to_owned()
    };
    assert!(stderr().starts_with("attest-client: cannot read the secret from secret: "));
    for wrong in [0, MAX_SECRET + 1] {
        fs::write(&secret, vec![7; wrong]).unwrap();
        assert_eq!(stderr(), "attest-client: a secret must have 1 to 4096 bytes\n");
    }
    fs::write(&secret, vec![7; MAX_SECRET]).unwrap();
    assert!(stderr().starts_with("attest-client: cannot connect to the enclave at ./vsock.sock: "));
}
