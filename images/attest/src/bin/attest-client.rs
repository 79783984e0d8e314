//! The example's program on the parent: gives a secret to an enclave that proves what it is, and to no other.
//!
//! Exit code 0 if the enclave has the secret, 1 if the enclave was refused, 2 if anything else went wrong.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attest::parent::{SendError, Trust, send_secret};
use attest::way_in::{Enclave, connect};
use attest::{MAX_SECRET, PORT, Secret};
use attestation::{AttestationDocument, PCR_LEN, Timestamp, TrustAnchor};
use clap::{ArgGroup, Parser};

/// How long an application that starts is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long the enclave may take for each answer.
const LIMIT: Duration = Duration::from_mins(1);
/// The longest root that is read, in bytes.
const MAX_ROOT: usize = 64 << 10;

/// Gives a secret to an enclave that proves what it is
#[derive(Debug, Parser)]
#[command(name = "attest-client", group = ArgGroup::new("enclave").required(true))]
struct Arguments {
    /// The enclave's CID, as `nitro-cli describe-enclaves` prints it
    #[arg(long, value_name = "CID", group = "enclave")]
    enclave_cid: Option<u32>,
    /// Of an enclave whose vsock is carried by Unix sockets, its directory: that of its EnclaveID in /run/enclaved
    #[arg(long, value_name = "PATH", group = "enclave")]
    enclave_dir: Option<PathBuf>,
    /// Or the socket in it
    #[arg(long, value_name = "PATH", group = "enclave")]
    vsock_socket: Option<PathBuf>,
    /// The root that the enclave's platform must have, PEM or DER: of this machine, what `nitro-cli attestation-root` prints
    #[arg(long, value_name = "PATH")]
    root: PathBuf,
    /// The measurement that the enclave must have, in hexadecimal: what `nitro-cli describe-eif` prints of its image
    #[arg(long, value_name = "HEX", value_parser = parse_pcr)]
    pcr0: [u8; PCR_LEN],
    /// The secret, 1 to 4096 bytes; `-` is standard input
    #[arg(long, value_name = "PATH")]
    secret_file: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(Outcome::Sent(document)) => {
            let content = document.content();
            println!(
                "Verified {}, document of {}",
                content.module_id, content.timestamp
            );
            println!("The enclave has read the secret");
            ExitCode::SUCCESS
        }
        Ok(Outcome::Refused(error)) => {
            eprintln!("Refused, nothing was sent: {}", chain_of(&error));
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("attest-client: {}", chain_of(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

/// What became of the secret.
enum Outcome {
    /// The enclave has it.
    Sent(Box<AttestationDocument>),
    /// The enclave may not have it.
    Refused(SendError),
}

fn run(arguments: &Arguments) -> Result<Outcome, Box<dyn Error>> {
    let root = read("the root", &arguments.root, MAX_ROOT)?;
    let root = TrustAnchor::from_bytes(&root)
        .map_err(|error| format!("{}: {}", arguments.root.display(), chain_of(&error)))?;
    let trust = Trust {
        root,
        pcr0: arguments.pcr0,
    };
    let secret = Secret::new(read("the secret", &arguments.secret_file, MAX_SECRET)?)?;
    let enclave = enclave(arguments);
    let mut stream = connect(&enclave, PORT, PATIENCE, LIMIT)
        .map_err(|error| format!("cannot connect to the enclave at {enclave}: {error}"))?;
    match send_secret(&mut stream, &trust, now, &secret) {
        Ok(document) => Ok(Outcome::Sent(Box::new(document))),
        Err(error) if error.is_refusal() => Ok(Outcome::Refused(error)),
        Err(error) => Err(error.into()),
    }
}

fn enclave(arguments: &Arguments) -> Enclave {
    match (
        arguments.enclave_cid,
        &arguments.vsock_socket,
        &arguments.enclave_dir,
    ) {
        (Some(cid), ..) => Enclave::Cid(cid),
        (None, Some(socket), _) => Enclave::Socket(socket.clone()),
        (None, None, directory) => Enclave::Socket(directory.clone().unwrap_or_default().join("vsock.sock")),
    }
}

/// One byte more than there may be, so that it shows when there are too many.
fn read(what: &str, path: &Path, limit: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    // With room for all, a secret is never moved, which would leave a copy behind.
    let mut bytes = Vec::with_capacity(limit + 1);
    let limit = u64::try_from(limit)? + 1;
    let read = if path == Path::new("-") {
        io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| format!("cannot read {what} from {}: {error}", path.display()))?;
    Ok(bytes)
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

fn parse_pcr(text: &str) -> Result<[u8; PCR_LEN], String> {
    let wrong = || format!("a measurement has {} hexadecimal digits", 2 * PCR_LEN);
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits
        .filter(|digits| digits.len() == 2 * PCR_LEN)
        .ok_or_else(wrong)?;
    let mut pcr = [0; PCR_LEN];
    for (byte, pair) in pcr.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| {
            byte << 4 | u8::try_from(*digit).unwrap_or_default()
        });
    }
    Ok(pcr)
}

/// An error and what caused it.
fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_96_digits() {
        let mut expected = [0xab; PCR_LEN];
        expected[0] = 0x01;
        assert_eq!(parse_pcr(&format!("01{}", "aB".repeat(47))), Ok(expected));
        for wrong in [
            "",
            "0",
            &"0".repeat(95),
            &"0".repeat(97),
            &"g".repeat(96),
            &"é".repeat(48),
        ] {
            assert!(parse_pcr(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_enclave_is_named_by_its_cid_its_directory_or_its_socket() {
        let rest = ["--root", "r", "--pcr0", &"0".repeat(96), "--secret-file", "-"];
        let parse =
            |enclave: &[&str]| Arguments::try_parse_from([&["attest-client"], enclave, &rest].concat());
        let found = |named: &[&str]| enclave(&parse(named).unwrap());
        let at = |path: &str| Enclave::Socket(path.into());
        assert_eq!(found(&["--enclave-cid", "16"]), Enclave::Cid(16));
        assert_eq!(found(&["--enclave-dir", "/run/e"]), at("/run/e/vsock.sock"));
        assert_eq!(found(&["--vsock-socket", "/s"]), at("/s"));
        assert!(parse(&[]).is_err());
        assert!(parse(&["--enclave-dir", "/run/e", "--vsock-socket", "/s"]).is_err());
    }

    #[test]
    fn a_file_is_read_up_to_one_byte_too_many() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; 10]).unwrap();
        assert_eq!(read("it", file.path(), 10).unwrap().len(), 10);
        assert_eq!(read("it", file.path(), 8).unwrap().len(), 9);
        let error = read("the root", Path::new("/nowhere"), 8)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read the root from /nowhere: "),
            "{error}"
        );
    }
}
