//! What the daemon is told: command line arguments, and the plain [`Config`] made of them.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::sandbox::Layer;
use api::vmm::VsockBackend;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, ValueEnum};

use crate::authority::Source;
use crate::places::Room;
use crate::vmm_user::FIRST_VMM_USER;

/// Clients at the same time.
pub const MOST_CLIENTS: usize = 1024;

/// The VMM's file name.
const VMM: &str = "enclave-vmm";

/// The enclaved command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "enclaved",
    version,
    about = "The host daemon of enclaved: runs Nitro Enclaves images on this machine's KVM",
    long_about = "The host daemon of enclaved: carves CPUs and hugepages out of this machine and boots Nitro Enclaves \
                  images (EIF) in KVM microVMs. Clients, such as nitro-cli, talk to it through a Unix socket.\n\n\
                  Without --foreground it returns once clients can connect, goes on in the background, and logs to \
                  enclaved.log in the run directory. SIGTERM ends the daemon and leaves its enclaves running, for the \
                  next daemon to take over; SIGINT ends both."
)]
pub struct Arguments {
    /// Stay in the foreground and log to standard error, as a service manager wants it
    #[arg(long)]
    pub foreground: bool,

    /// Directory for sockets and run-time state
    #[arg(long, value_name = "PATH", default_value = "/run/enclaved")]
    pub run_directory: PathBuf,

    /// The VMM to run [default: enclave-vmm beside this program, else in PATH]
    #[arg(long, value_name = "PATH")]
    pub vmm: Option<PathBuf>,

    /// How long an enclave may take to boot [default: 180 s, more for large images and memory, as on AWS]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub heartbeat_timeout: Option<u64>,

    /// The group whose members may use the socket, if it exists
    #[arg(long, value_name = "GROUP", default_value = "ne")]
    pub socket_group: String,

    /// Directory for what must survive a reboot: the keys that attestation documents are signed with
    #[arg(long, value_name = "PATH", default_value = "/var/lib/enclaved")]
    pub state_directory: PathBuf,

    /// The region that certificates of attestation name
    #[arg(long, value_name = "REGION", default_value = "local")]
    pub region: String,

    /// The role of this machine, as an ARN, which PCR 3 states [default: none, and PCR 3 is zero]
    #[arg(long, value_name = "ARN")]
    pub parent_role: Option<String>,

    /// The private key of this host (PKCS#8, P-384), if your own authority has issued its certificate
    #[arg(long, value_name = "PATH", requires = "attestation_chain")]
    pub attestation_key: Option<PathBuf>,

    /// The certificate of this host and those above it, up to your root (PEM)
    #[arg(long, value_name = "PATH", requires = "attestation_key")]
    pub attestation_chain: Option<PathBuf>,

    /// What carries the vsock of enclaves that are started without that option: the kernel's vhost-vsock, with which programs on
    /// this machine use `AF_VSOCK`, or Unix sockets in the enclave's directory [default: kernel where /dev/vhost-vsock is there]
    #[arg(long, value_enum)]
    pub vsock: Option<Vsock>,

    /// VMMs run as users without a name, one per enclave: UID plus the number of the enclave's first CPU
    #[arg(long, value_name = "UID", default_value_t = FIRST_VMM_USER, value_parser = clap::value_parser!(u32).range(1..))]
    pub first_vmm_user: u32,

    /// Run enclaves also where the machine does not give their VMMs these layers of their sandbox [default: refuse to]
    #[arg(long, value_name = "LAYER", value_delimiter = ',', value_parser = layer())]
    pub allow_missing: Vec<Layer>,

    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// The audit log: a line of JSON for each request, who has made it and what came of it
    #[arg(long, value_name = "PATH", default_value = "/var/log/enclaved/audit.jsonl")]
    pub audit_log: PathBuf,

    /// Keep no audit log
    #[arg(long, conflicts_with = "audit_log")]
    pub no_audit_log: bool,

    /// Set by a daemon that puts itself into the background
    #[arg(long, hide = true)]
    pub background_child: bool,
}

/// Layers by their names, which help and errors list.
fn layer() -> impl TypedValueParser<Value = Layer> {
    PossibleValuesParser::new(Layer::ALL.map(Layer::name)).try_map(|name| name.parse::<Layer>())
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What carries the vsock of enclaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Vsock {
    /// Unix sockets.
    Unix,
    /// The kernel.
    Kernel,
}

impl From<Vsock> for VsockBackend {
    fn from(vsock: Vsock) -> Self {
        match vsock {
            Vsock::Unix => Self::Unix,
            Vsock::Kernel => Self::Kernel,
        }
    }
}

/// What the daemon needs to know, as plain data.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory for sockets and run-time state.
    pub run_directory: PathBuf,
    /// The group whose members may use the socket, if it exists.
    pub socket_group: String,
    /// Where groups are listed.
    pub group_file: PathBuf,
    /// How long an enclave may take to boot; `None` for AWS's formula.
    pub heartbeat_timeout: Option<Duration>,
    /// What clients may use.
    pub limits: Limits,
    /// Where the authority comes from that signs attestation documents.
    pub authority: Source,
    /// The region that its certificates name.
    pub region: String,
    /// The role that PCR 3 states.
    pub parent_role: Option<String>,
    /// What carries the vsock of enclaves whose clients do not say; `None` for the kernel where it can.
    pub vsock: Option<VsockBackend>,
    /// The first user id of VMMs.
    pub first_vmm_user: u32,
    /// Where requests are written down; nowhere if there is no path.
    pub audit_log: Option<PathBuf>,
}

/// What clients may use of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From connecting to the last byte of the request.
    pub request_time: Duration,
    /// For a client to take one reply.
    pub reply_time: Duration,
    /// Clients at the same time.
    pub connections: Room,
    /// Of these, clients that watch a console or hear of events.
    pub watchers: Room,
    /// And clients that wait for the end of an enclave.
    pub waiters: Room,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_time: Duration::from_secs(5),
            reply_time: Duration::from_secs(10),
            connections: Room::of(MOST_CLIENTS),
            watchers: Room::of(256),
            waiters: Room::of(512),
        }
    }
}

impl From<&Arguments> for Config {
    fn from(arguments: &Arguments) -> Self {
        Self {
            run_directory: arguments.run_directory.clone(),
            socket_group: arguments.socket_group.clone(),
            group_file: PathBuf::from("/etc/group"),
            heartbeat_timeout: arguments.heartbeat_timeout.map(Duration::from_secs),
            limits: Limits::default(),
            authority: match (&arguments.attestation_key, &arguments.attestation_chain) {
                (Some(key), Some(chain)) => Source::Imported {
                    key: key.clone(),
                    chain: chain.clone(),
                },
                _ => Source::Own(arguments.state_directory.join("attestation")),
            },
            region: arguments.region.clone(),
            parent_role: arguments.parent_role.clone(),
            vsock: arguments.vsock.map(VsockBackend::from),
            first_vmm_user: arguments.first_vmm_user,
            audit_log: (!arguments.no_audit_log).then(|| arguments.audit_log.clone()),
        }
    }
}

/// There is no VMM to run.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The one that was named is not there.
    #[error("there is no VMM at {0}")]
    NotThere(PathBuf),
    /// None is found.
    #[error("{VMM} is neither beside enclaved nor in PATH; say where it is with --vmm")]
    NotFound,
}

/// The VMM as an absolute path: the one named, else the one beside this program, else the first in PATH.
///
/// # Errors
/// [`VmmError`].
pub fn find_vmm(named: Option<&Path>) -> Result<PathBuf, VmmError> {
    find_vmm_among(named, env::current_exe().ok(), env::var_os("PATH").as_deref())
}

fn find_vmm_among(
    named: Option<&Path>,
    own: Option<PathBuf>,
    path: Option<&OsStr>,
) -> Result<PathBuf, VmmError> {
    let absolute = |found: &Path| std::path::absolute(found).unwrap_or_else(|_| found.to_owned());
    if let Some(named) = named {
        if !named.is_file() {
            return Err(VmmError::NotThere(named.to_owned()));
        }
        return Ok(absolute(named));
    }
    let beside = own.and_then(|own| Some(own.parent()?.join(VMM)));
    let in_path = path
        .iter()
        .flat_map(env::split_paths)
        .map(|directory| directory.join(VMM));
    let found = beside
        .into_iter()
        .chain(in_path)
        .find(|candidate| candidate.is_file());
    found.map(|found| absolute(&found)).ok_or(VmmError::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        assert!(Arguments::try_parse_from(["enclaved", "--heartbeat-timeout", "0"]).is_err());
    }

    #[test]
    fn layers_that_may_be_missing_are_named_and_others_refused_with_the_names() {
        let parse = |names: &str| Arguments::try_parse_from(["enclaved", "--allow-missing", names]);

        let arguments = parse("network-namespace,empty-root").unwrap();

        assert_eq!(
            arguments.allow_missing,
            [Layer::NetworkNamespace, Layer::EmptyRoot]
        );
        let refused = parse("network").unwrap_err().to_string();
        assert!(refused.contains("network-namespace"), "{refused}");
        assert!(parse("").is_err());
    }

    #[test]
    fn arguments_become_a_config() {
        let arguments =
            Arguments::try_parse_from(["enclaved", "--run-directory", "/r", "--heartbeat-timeout", "7"])
                .unwrap();

        let config = Config::from(&arguments);

        assert_eq!(config.run_directory, Path::new("/r"));
        assert_eq!(config.heartbeat_timeout, Some(Duration::from_secs(7)));
        assert_eq!(config.socket_group, "ne");
    }

    #[test]
    fn the_vmm_named_comes_before_the_one_beside_and_that_before_path() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(VMM), "").unwrap();
            path
        };
        let (named, beside, in_path) = (place("named").join("enclave-vmm"), place("beside"), place("path"));
        let own = Some(beside.join("enclaved"));
        let path = Some(env::join_paths([Path::new("/nonexistent"), &in_path]).unwrap());
        let find = |named, own: &Option<PathBuf>| find_vmm_among(named, own.clone(), path.as_deref());

        assert_eq!(find(Some(&named), &own).unwrap(), named);
        assert_eq!(find(None, &own).unwrap(), beside.join(VMM));
        assert_eq!(find(None, &None).unwrap(), in_path.join(VMM));
        assert!(matches!(
            find_vmm_among(None, None, None),
            Err(VmmError::NotFound)
        ));
        let absent = Path::new("/nonexistent/vmm");
        assert!(matches!(find(Some(absent), &own), Err(VmmError::NotThere(path)) if path == absent));
    }
}
