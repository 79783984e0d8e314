//! The options of every command, as AWS's nitro-cli 1.5 has them. The doc comments here are the texts of `--help`.
//!
//! clap checks which options are there and which exclude each other, and ends with 2. Numbers stay text: AWS's
//! nitro-cli parses them itself, with an `[ E03 ]` error (see [`crate::values`]).

use std::ffi::OsString;
use std::path::PathBuf;

use api::Selector;
use api::vmm::VsockBackend;
use clap::{ArgAction, ArgGroup, Args, Parser, Subcommand, ValueEnum};

/// The AWS release whose commands, JSON and exit codes these are; scripts parse it out of `--version`.
pub(crate) const AWS_VERSION: &str = "1.5.0";

/// What is typed to run this program.
pub(crate) const PROGRAM: &str = "nitro-cli";

/// What `--help` says below the list of commands.
const AFTER_HELP: &str = concat!(
    "This is enclaved ",
    env!("CARGO_PKG_VERSION"),
    ", compatible with AWS's Nitro CLI 1.5.0.\n\
     \n\
     Environment:\n  \
       ENCLAVED_SOCKET      The daemon's socket [default: /run/enclaved/enclaved.sock]\n  \
       NITRO_CLI_ARTIFACTS  Directory of what build-enclave fetches [default: $HOME/.nitro_cli]\n  \
       NITRO_CLI_BLOBS      Directory of kernel, command line and init for build-enclave\n                       \
                            [default: /usr/share/nitro_enclaves/blobs/]\n  \
       NITRO_CLI_LOGS_PATH  Directory of nitro_enclaves.log and of a file for each error, made if it is missing\n                       \
                            [default: /var/log/nitro_enclaves, where that can be written]\n  \
       RUST_LOG             What goes into the log: off, error, warn, info, debug or trace [default: info]\n  \
       BACKTRACE            1 shows with an error what is in its file\n  \
       SOURCE_DATE_EPOCH    Seconds since 1970 as the time of a build",
);

/// Build, run and watch enclaves on this machine
#[derive(Debug, Parser)]
#[command(name = PROGRAM, display_name = "Nitro CLI", version = AWS_VERSION, after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// One command and its options.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    BuildEnclave(BuildEnclave),
    RunEnclave(RunEnclave),
    DescribeEnclaves(DescribeEnclaves),
    DescribePools(DescribePools),
    Console(Console),
    Logs(Logs),
    Events(Events),
    TerminateEnclave(TerminateEnclave),
    DescribeEif(DescribeEif),
    AttestationRoot(AttestationRoot),
    VerifyAttestation(VerifyAttestation),
    SignEif(SignEif),
    Pcr(Pcr),
    Explain(Explain),
    Doctor(Doctor),
    Completions(Completions),
    ManPages(ManPages),
}

impl Command {
    /// Its name, as it is typed: what the log calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BuildEnclave(_) => "build-enclave",
            Self::RunEnclave(_) => "run-enclave",
            Self::DescribeEnclaves(_) => "describe-enclaves",
            Self::DescribePools(_) => "describe-pools",
            Self::Console(_) => "console",
            Self::Logs(_) => "logs",
            Self::Events(_) => "events",
            Self::TerminateEnclave(_) => "terminate-enclave",
            Self::DescribeEif(_) => "describe-eif",
            Self::AttestationRoot(_) => "attestation-root",
            Self::VerifyAttestation(_) => "verify-attestation",
            Self::SignEif(_) => "sign-eif",
            Self::Pcr(_) => "pcr",
            Self::Explain(_) => "explain",
            Self::Doctor(_) => "doctor",
            Self::Completions(_) => "completions",
            Self::ManPages(_) => "man-pages",
        }
    }
}

/// Build an enclave image file (EIF) from a container image or a directory
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli build-enclave --docker-uri ./hello-rootfs --output-file hello.eif
  nitro-cli build-enclave --docker-uri docker://registry.example/hello:v1 --output-file hello.eif
  nitro-cli build-enclave --docker-dir ./hello --docker-uri hello:latest --output-file hello.eif
  nitro-cli build-enclave --docker-uri ./hello-rootfs --measure-only
  nitro-cli build-enclave --docker-uri ./hello-rootfs --output-file hello.eif \\
      --signing-certificate cert.pem --private-key key.pem")]
pub(crate) struct BuildEnclave {
    /// The image: a path to an OCI image layout or a `docker save` archive (each a directory or a tar archive), either with
    /// `:NAME` appended if it holds several images, or to a root file system directory; or else the name of an image that
    /// Docker or Podman has here, or a registry, such as `hello:v1` or `registry.example/hello@sha256:...`, with `docker://` in front for a
    /// registry whatever else there is
    #[arg(long, value_name = "IMAGE")]
    pub(crate) docker_uri: OsString,

    /// Build the image first, from the `Dockerfile` in this directory, with whichever of buildah, podman and docker is installed;
    /// --docker-uri then says what to call it
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) docker_dir: Option<PathBuf>,

    /// Where to write the EIF; an existing file is replaced once the build has succeeded
    #[arg(long, value_name = "FILE", required_unless_present = "measure_only")]
    pub(crate) output_file: Option<PathBuf>,

    /// Write no EIF, only print what it would measure
    #[arg(long)]
    pub(crate) measure_only: bool,

    /// The image's name in its metadata [default: the name of the container image or file]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// The image's version in its metadata [default: the id of the container image]
    #[arg(long, value_name = "VERSION")]
    pub(crate) version: Option<String>,

    /// A file of up to 4096 bytes with a JSON object, to be added to the metadata
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata: Option<PathBuf>,

    /// The enclave's kernel, instead of `bzImage` in the directory of blobs. Its configuration is FILE.config, if there is one
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,

    /// The command line of the enclave's kernel, instead of what `cmdline` in the directory of blobs says
    #[arg(long, value_name = "TEXT")]
    pub(crate) cmdline: Option<String>,

    /// The first program of the enclave, instead of `init` in the directory of blobs
    #[arg(long, value_name = "FILE")]
    pub(crate) init: Option<PathBuf>,

    /// Say nothing but errors and warnings on standard error
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Certificates in PEM of an authority that registries may have theirs from, besides the system's and those in
    /// /etc/docker/certs.d; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_ca: Vec<PathBuf>,

    /// A registry that has images of others and is asked first; may be repeated, and is then asked in that order
    #[arg(long, value_name = "URL")]
    pub(crate) registry_mirror: Vec<String>,

    #[command(flatten)]
    pub(crate) signing: Signing,
}

/// Who signs; both options or none
#[derive(Debug, Args)]
pub(crate) struct Signing {
    /// The signer's certificate in PEM, whose measurement becomes PCR8. Its key is on P-256, P-384 or P-521
    #[arg(long, value_name = "FILE", requires = "private_key")]
    pub(crate) signing_certificate: Option<PathBuf>,

    /// The key that belongs to the certificate, in PEM, not encrypted
    #[arg(long, value_name = "FILE", requires = "signing_certificate")]
    pub(crate) private_key: Option<PathBuf>,
}

/// Start an enclave and wait until it has booted
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli run-enclave --eif-path hello.eif --memory 512 --cpu-count 2 --debug-mode
  nitro-cli run-enclave --config hello.json
  nitro-cli run-enclave --eif-path hello.eif --memory 512 --cpu-count 2 --wait

A configuration, hello.json, has the options of the command line as keys; cpu_ids may stand for cpu_count:
  {
    \"eif_path\": \"hello.eif\",
    \"memory_mib\": 512,
    \"cpu_count\": 2,
    \"enclave_cid\": 16,
    \"enclave_name\": \"hello\",
    \"debug_mode\": true,
    \"attach_console\": false
  }")]
pub(crate) struct RunEnclave {
    /// The image to boot
    #[arg(long, value_name = "FILE", required_unless_present = "config")]
    pub(crate) eif_path: Option<PathBuf>,

    /// Memory for the enclave in MiB, or with a unit: 512M, 2G, 1T. At least 64 MiB and four times the EIF
    #[arg(long, value_name = "SIZE", required_unless_present = "config")]
    pub(crate) memory: Option<String>,

    /// How many CPUs the enclave gets; whole cores, so an even number where cores have two threads
    #[arg(long, value_name = "COUNT", required_unless_present_any = ["cpu_ids", "config"])]
    pub(crate) cpu_count: Option<String>,

    /// Which CPUs of this machine the enclave gets, separated by spaces
    #[arg(long, value_name = "ID", num_args = 1.., action = ArgAction::Set, conflicts_with = "cpu_count")]
    #[arg(required_unless_present_any = ["cpu_count", "config"])]
    pub(crate) cpu_ids: Option<Vec<String>>,

    /// The enclave's vsock address, 4 or more; 0 has one chosen
    #[arg(long, value_name = "CID")]
    pub(crate) enclave_cid: Option<String>,

    /// The enclave's name; a number is appended if it is taken [default: the EIF's file name without `.eif`]
    #[arg(long, value_name = "NAME")]
    pub(crate) enclave_name: Option<String>,

    /// Let the console be watched. Such an enclave attests with PCRs 0, 1, 2 and 8 that are zero
    #[arg(long)]
    pub(crate) debug_mode: bool,

    /// Watch the console as soon as the enclave runs; implies --debug-mode
    #[arg(long)]
    pub(crate) attach_console: bool,

    /// Stay until the enclave has ended, and end with its application's exit code. Ctrl-C and SIGTERM end the enclave
    #[arg(long)]
    pub(crate) wait: bool,

    /// What carries the enclave's vsock on this machine: the kernel, for programs that use AF_VSOCK, or Unix sockets in the
    /// enclave's directory [default: as the daemon was told, else the kernel where it can]
    #[arg(long, value_name = "BACKEND", value_enum)]
    pub(crate) vsock: Option<Vsock>,

    /// Take all of this from a JSON file instead
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["eif_path", "memory", "cpu_count", "cpu_ids", "enclave_cid", "enclave_name", "debug_mode", "vsock"])]
    pub(crate) config: Option<PathBuf>,
}

/// What carries an enclave's vsock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vsock {
    /// The kernel's vhost-vsock.
    Kernel,
    /// Unix sockets.
    Unix,
}

impl From<Vsock> for VsockBackend {
    fn from(vsock: Vsock) -> Self {
        match vsock {
            Vsock::Kernel => Self::Kernel,
            Vsock::Unix => Self::Unix,
        }
    }
}

/// List the running enclaves
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli describe-enclaves
  nitro-cli describe-enclaves --metadata
  nitro-cli describe-enclaves --output table
  nitro-cli describe-enclaves --ended")]
pub(crate) struct DescribeEnclaves {
    /// Also show what the images say of themselves: name, version, how they were built
    #[arg(long, conflicts_with = "ended")]
    pub(crate) metadata: bool,

    /// List the enclaves that have ended lately instead, oldest first: why, when, and (debug mode) their last words
    #[arg(long)]
    pub(crate) ended: bool,

    /// JSON for programs, a table with the most important for people
    #[arg(long, value_name = "FORM", value_enum, default_value_t = Form::Json)]
    pub(crate) output: Form,
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For programs.
    Json,
    /// For people.
    Table,
}

/// Show the CPUs and hugepages that enclaves may have, and who holds them
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli describe-pools")]
pub(crate) struct DescribePools {}

/// Watch the console of an enclave that runs in debug mode
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli console --enclave-name hello --disconnect-timeout 30")]
#[command(group = ArgGroup::new("enclave").required(true))]
pub(crate) struct Console {
    /// The enclave with this id
    #[arg(long, value_name = "ID", group = "enclave")]
    pub(crate) enclave_id: Option<String>,

    /// The enclave with this name
    #[arg(long, value_name = "NAME", group = "enclave")]
    pub(crate) enclave_name: Option<String>,

    /// Leave after this many seconds, counted from the start, whether or not there is output
    #[arg(long, value_name = "SECONDS")]
    pub(crate) disconnect_timeout: Option<String>,
}

/// Print what an enclave in debug mode has printed, also after its end
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli logs --enclave-name hello
  nitro-cli logs --enclave-name hello --follow

Kept are the last MiB of each enclave's console, and those of the last 16 enclaves that have ended.")]
#[command(group = ArgGroup::new("enclave").required(true))]
pub(crate) struct Logs {
    /// The enclave with this id
    #[arg(long, value_name = "ID", group = "enclave")]
    pub(crate) enclave_id: Option<String>,

    /// The enclave with this name; if none runs, the last one that did
    #[arg(long, value_name = "NAME", group = "enclave")]
    pub(crate) enclave_name: Option<String>,

    /// Go on with what the enclave prints, until it ends
    #[arg(long)]
    pub(crate) follow: bool,
}

/// Print what becomes of enclaves, as it happens
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli events

Each line is a JSON object. The first are the enclaves that run (PRESENT); STARTING, RUNNING, TERMINATING and ENDED follow as
it happens, and LOST in place of events that came faster than they were read.")]
pub(crate) struct Events {}

/// End enclaves and give their CPUs and memory back
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli terminate-enclave --enclave-name hello")]
#[command(group = ArgGroup::new("enclave").required(true))]
pub(crate) struct TerminateEnclave {
    /// The enclave with this id
    #[arg(long, value_name = "ID", group = "enclave")]
    pub(crate) enclave_id: Option<String>,

    /// The enclave with this name
    #[arg(long, value_name = "NAME", group = "enclave")]
    pub(crate) enclave_name: Option<String>,

    /// Every enclave that you have started; as root, every enclave
    #[arg(long, group = "enclave")]
    pub(crate) all: bool,
}

/// Show what an enclave image file holds, and its measurements
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli describe-eif --eif-path hello.eif")]
pub(crate) struct DescribeEif {
    /// The image to read
    #[arg(long, value_name = "FILE")]
    pub(crate) eif_path: PathBuf,
}

/// Print the root that verifiers of attestation documents pin
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli attestation-root")]
pub(crate) struct AttestationRoot {}

/// Verify an attestation document
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli verify-attestation --document document.cose --root root.pem --pcr 0=$PCR0 --nonce 00ff

The exit code is 0 if the document passes every check and 1 if it does not; the answer, JSON, then names the check.")]
pub(crate) struct VerifyAttestation {
    /// The document, as /dev/nsm gives it; `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) document: PathBuf,

    /// The root certificate to pin, PEM or DER: AWS's, or what attestation-root prints
    #[arg(long, value_name = "FILE")]
    pub(crate) root: PathBuf,

    /// What a PCR must hold: its index and 96 hexadecimal digits. May be given more than once
    #[arg(long, value_name = "N=HEX")]
    pub(crate) pcr: Vec<String>,

    /// What the nonce must be, in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,

    /// What the user data must be, in hexadecimal
    #[arg(long, value_name = "HEX")]
    pub(crate) user_data: Option<String>,

    /// The longest time since the document was made [default: as long as its certificate is valid, three hours]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_age: Option<String>,

    /// Verify as of this time (`2026-01-31T12:00:00Z`, or seconds since 1970), or of the document's own: `document` [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,

    /// Accept the document of an enclave in debug mode, whose PCR 0 is zero
    #[arg(long)]
    pub(crate) allow_debug: bool,
}

/// Sign an enclave image file (EIF), in place of a signature that it may have
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli sign-eif --eif-path hello.eif --signing-certificate cert.pem --private-key key.pem

With a key that is elsewhere, and stays there:
  nitro-cli sign-eif --eif-path hello.eif --signing-certificate cert.pem --to-be-signed hello.tbs
  openssl dgst -sha384 -sign key.pem -out hello.sig hello.tbs
  nitro-cli sign-eif --eif-path hello.eif --signing-certificate cert.pem --signature hello.sig

A key and a certificate to try it with:
  openssl ecparam -name secp384r1 -genkey -noout -out key.pem
  openssl req -new -x509 -key key.pem -sha384 -days 365 -subj /CN=signer -out cert.pem")]
pub(crate) struct SignEif {
    /// The image to sign; it is replaced once it is signed
    #[arg(long, value_name = "FILE")]
    pub(crate) eif_path: Option<PathBuf>,

    /// The signer's certificate in PEM, whose measurement becomes PCR8. Its key is on P-256, P-384 or P-521
    #[arg(long, value_name = "FILE", requires = "signed_by")]
    pub(crate) signing_certificate: Option<PathBuf>,

    /// The key that belongs to the certificate, in PEM, not encrypted
    #[arg(
        long,
        value_name = "FILE",
        requires = "signing_certificate",
        group = "signed_by"
    )]
    pub(crate) private_key: Option<PathBuf>,

    /// Do not sign: write the bytes that a key elsewhere has to sign, and change nothing
    #[arg(
        long,
        value_name = "FILE",
        requires = "signing_certificate",
        group = "signed_by"
    )]
    pub(crate) to_be_signed: Option<PathBuf>,

    /// The signature over these bytes that was made elsewhere, in DER or as r and s
    #[arg(
        long,
        value_name = "FILE",
        requires = "signing_certificate",
        group = "signed_by"
    )]
    pub(crate) signature: Option<PathBuf>,
}

/// Show the measurement of a file, or of a certificate
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli pcr --signing-certificate cert.pem
  nitro-cli pcr --input bzImage")]
#[command(group = ArgGroup::new("measured").required(true))]
pub(crate) struct Pcr {
    /// A certificate in PEM: the PCR8 of images that it signs
    #[arg(long, value_name = "FILE", group = "measured")]
    pub(crate) signing_certificate: Option<PathBuf>,

    /// Any file
    #[arg(long, value_name = "FILE", group = "measured")]
    pub(crate) input: Option<PathBuf>,
}

/// Explain an error of this program by its number
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli explain --error-code E26")]
pub(crate) struct Explain {
    /// The number as an error shows it between its brackets, such as E26
    #[arg(long, value_name = "CODE")]
    pub(crate) error_code: String,
}

/// Check whether this machine can run enclaves, and say what mends what is wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli doctor --json

The exit code is 0 if enclaves can run, also with warnings, and 1 if something keeps them from it.")]
pub(crate) struct Doctor {
    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Print a script by which a shell completes command lines
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  nitro-cli completions bash

To have them in each bash: nitro-cli completions bash > ~/.local/share/bash-completion/completions/nitro-cli")]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Write the manual pages; packages do
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct ManPages {
    /// Where to
    #[arg(value_name = "DIRECTORY")]
    pub(crate) directory: PathBuf,
}

impl Console {
    /// The one enclave that is meant.
    pub(crate) fn selector(&self) -> Selector {
        selector(self.enclave_id.as_deref(), self.enclave_name.as_deref())
    }
}

impl Logs {
    /// The one enclave that is meant.
    pub(crate) fn selector(&self) -> Selector {
        selector(self.enclave_id.as_deref(), self.enclave_name.as_deref())
    }
}

impl TerminateEnclave {
    /// The enclaves that are meant.
    pub(crate) fn selector(&self) -> Selector {
        selector(self.enclave_id.as_deref(), self.enclave_name.as_deref())
    }
}

/// clap has seen to it that exactly one option of the group is there: neither id nor name is `--all`.
fn selector(id: Option<&str>, name: Option<&str>) -> Selector {
    match (id, name) {
        (Some(id), _) => Selector::Id(id.to_owned()),
        (None, Some(name)) => Selector::Name(name.to_owned()),
        (None, None) => Selector::All,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_parser_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn cpu_ids_end_at_the_next_option() {
        let arguments = [
            "nitro-cli",
            "run-enclave",
            "--cpu-ids",
            "2",
            "3",
            "--memory=1G",
            "--eif-path",
            "a.eif",
        ];

        let Ok(Arguments {
            command: Command::RunEnclave(run),
        }) = Arguments::try_parse_from(arguments)
        else {
            panic!("not a run-enclave command");
        };

        assert_eq!(run.cpu_ids.unwrap(), ["2", "3"]);
        assert_eq!(run.memory.unwrap(), "1G");
    }
}
