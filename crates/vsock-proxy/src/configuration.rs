//! The two files: the servers that may be connected to, and the targets.
//!
//! ```yaml
//! allowlist:
//! - {address: kms.us-east-1.amazonaws.com, port: 443}
//! targets:
//! - {local_port: 8000, remote_addr: kms.us-east-1.amazonaws.com, remote_port: 443}
//! ```
//!
//! Keys beside `allowlist` and `targets` mean nothing, so that one file can be both. What makes YAML dangerous is switched
//! off: anchors, aliases and merge keys, keys that come twice, deep nesting.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::{MergeKeyPolicy, SnippetMode, UserMessageFormatter};

use crate::enclave_side::{EnclaveAddress, ListenAddress};

/// The largest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Collections within collections. Both files need three.
const MAX_DEPTH: usize = 8;

/// Keys, values and collections.
const MAX_NODES: usize = 64 << 10;

/// The most targets of a process. Each takes a descriptor, and a share of the connections.
const MAX_TARGETS: usize = 256;

/// Why a file cannot be used. The first words are AWS's.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It does not exist, or may not be read.
    #[error("Could not open the file")]
    Open(#[source] io::Error),
    /// Reading failed.
    #[error("Could not read the file")]
    Read(#[source] io::Error),
    /// It is no configuration.
    #[error("Could not read the file: it is larger than {MAX_FILE} bytes")]
    TooLarge,
    /// It is no YAML, or values are of another type.
    #[error("Bad yaml format: {0}")]
    Yaml(String),
    /// The list of servers is missing.
    #[error(
        "No allowlist field; write `allowlist:` and below it `- {{address: NAME, port: PORT}}` for each server"
    )]
    NoAllowlist,
    /// A server without an address; the first is 1.
    #[error("No address field in entry {0} of the allowlist")]
    NoAddress(usize),
    /// A server without a port; the first is 1.
    #[error("No port field or invalid type in entry {0} of the allowlist")]
    NoPort(usize),
    /// There is nothing to do.
    #[error("it has no targets; write `targets:` and below it an entry for each, see vsock-proxy --help")]
    NoTargets,
    /// More than one process should have.
    #[error("it has more than {MAX_TARGETS} targets")]
    TooManyTargets,
    /// A target whose keys do not go together; the first is 1.
    #[error(
        "target {0} is neither local_port or local_socket with remote_addr and remote_port, nor inbound with enclave_port and \
         enclave_cid or enclave_socket"
    )]
    Target(usize),
}

/// A TCP server, by name or IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpSide {
    /// A name or an IP address.
    pub address: String,
    /// Its port.
    pub port: u16,
}

/// A server that may be connected to.
pub type Service = TcpSide;

/// The servers that may be connected to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowlist(Vec<Service>);

/// What one target does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetConfiguration {
    /// Enclaves connect to a server.
    Outbound {
        /// Where enclaves connect to.
        listen: ListenAddress,
        /// The server.
        remote: TcpSide,
    },
    /// Clients connect to an enclave.
    Inbound {
        /// Where clients connect to.
        listen: SocketAddr,
        /// The enclave, and its port.
        enclave: EnclaveAddress,
    },
}

/// Any number of targets but none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets(pub Vec<TargetConfiguration>);

#[derive(Deserialize)]
struct AllowlistFile {
    allowlist: Option<Vec<ServiceEntry>>,
}

/// Keys of an entry that mean nothing are ignored, as AWS does.
#[derive(Deserialize)]
struct ServiceEntry {
    address: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct TargetsFile {
    targets: Option<Vec<TargetEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetEntry {
    local_port: Option<u32>,
    local_socket: Option<PathBuf>,
    remote_addr: Option<String>,
    remote_port: Option<u16>,
    inbound: Option<SocketAddr>,
    enclave_cid: Option<u32>,
    enclave_socket: Option<PathBuf>,
    enclave_port: Option<u32>,
}

impl Allowlist {
    /// The one in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigurationError> {
        Self::parse(&read(path)?)
    }

    /// The one that these bytes of YAML are.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        let file: AllowlistFile = parse(bytes)?;
        let entries = file.allowlist.ok_or(ConfigurationError::NoAllowlist)?;
        let service = |(number, entry): (usize, ServiceEntry)| {
            Ok(Service {
                address: entry.address.ok_or(ConfigurationError::NoAddress(number))?,
                port: entry.port.ok_or(ConfigurationError::NoPort(number))?,
            })
        };
        (1..)
            .zip(entries)
            .map(service)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether it has this very name, or IP address as text, and port.
    pub fn names(&self, remote: &TcpSide) -> bool {
        self.0.contains(remote)
    }

    /// What is allowed at a port.
    pub(crate) fn at_port(&self, port: u16) -> impl Iterator<Item = &str> {
        let services = self.0.iter().filter(move |service| service.port == port);
        services.map(|service| service.address.as_str())
    }
}

impl Targets {
    /// Those in a file.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigurationError> {
        Self::parse(&read(path)?)
    }

    /// Those that these bytes of YAML are.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        let file: TargetsFile = parse(bytes)?;
        let entries = file.targets.unwrap_or_default();
        if entries.is_empty() {
            return Err(ConfigurationError::NoTargets);
        }
        if entries.len() > MAX_TARGETS {
            return Err(ConfigurationError::TooManyTargets);
        }
        let target =
            |(number, entry): (usize, TargetEntry)| entry.target().ok_or(ConfigurationError::Target(number));
        (1..).zip(entries).map(target).collect::<Result<_, _>>().map(Self)
    }
}

impl TargetEntry {
    /// What it says, if its keys go together.
    fn target(self) -> Option<TargetConfiguration> {
        let inbound_keys =
            self.enclave_cid.is_some() || self.enclave_socket.is_some() || self.enclave_port.is_some();
        let outbound_keys = self.local_port.is_some()
            || self.local_socket.is_some()
            || self.remote_addr.is_some()
            || self.remote_port.is_some();
        match self.inbound {
            Some(listen) if !outbound_keys => {
                let enclave = match (self.enclave_cid, self.enclave_socket) {
                    (Some(cid), None) => EnclaveAddress::Vsock {
                        cid,
                        port: self.enclave_port?,
                    },
                    (None, Some(socket)) => EnclaveAddress::Unix {
                        socket,
                        port: self.enclave_port?,
                    },
                    _ => return None,
                };
                Some(TargetConfiguration::Inbound { listen, enclave })
            }
            None if !inbound_keys => {
                let listen = match (self.local_port, self.local_socket) {
                    (Some(port), None) => ListenAddress::Vsock(port),
                    (None, Some(socket)) => ListenAddress::Unix(socket),
                    _ => return None,
                };
                let remote = TcpSide {
                    address: self.remote_addr?,
                    port: self.remote_port?,
                };
                Some(TargetConfiguration::Outbound { listen, remote })
            }
            _ => None,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigurationError> {
    let file = File::open(path).map_err(ConfigurationError::Open)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(ConfigurationError::Read)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ConfigurationError::TooLarge);
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ConfigurationError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_merge_keys: 0,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
    };
    serde_saphyr::from_slice_with_options(bytes, options).map_err(|error| {
        let options = serde_saphyr::render_options! {
            formatter: &UserMessageFormatter,
            snippets: SnippetMode::Off,
        };
        let text = error.render_with_options(options);
        ConfigurationError::Yaml(text.split_whitespace().collect::<Vec<_>>().join(" "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(address: &str, port: u16) -> Service {
        Service {
            address: address.into(),
            port,
        }
    }

    #[test]
    fn allowlists_of_aws_are_read() {
        let aws = b"allowlist:\n- {address: kms.us-east-1.amazonaws.com, port: 443}\n- address: 10.0.0.7\n  port: 80\n  why: ours\n";
        let allowlist = Allowlist::parse(aws).unwrap();
        assert!(allowlist.names(&service("kms.us-east-1.amazonaws.com", 443)));
        assert!(allowlist.names(&service("10.0.0.7", 80)));
        assert!(!allowlist.names(&service("10.0.0.7", 443)));
        assert!(!allowlist.names(&service("kms.us-east-1", 443)));
        assert_eq!(
            allowlist.at_port(443).collect::<Vec<_>>(),
            ["kms.us-east-1.amazonaws.com"]
        );
    }

    #[test]
    fn the_allowlist_that_is_installed_names_the_key_services() {
        let allowlist = Allowlist::parse(include_bytes!("../../../dist/vsock-proxy.yaml")).unwrap();
        for name in ["kms.us-east-1.amazonaws.com", "kms-fips.eu-west-3.amazonaws.com"] {
            assert!(allowlist.names(&service(name, 443)), "{name}");
        }
    }

    #[test]
    fn the_targets_that_are_installed_are_on_the_allowlist_that_is() {
        let allowlist = Allowlist::parse(include_bytes!("../../../dist/vsock-proxy.yaml")).unwrap();
        let targets = Targets::parse(include_bytes!("../../../dist/vsock-proxy-targets.yaml")).unwrap();
        for target in targets.0 {
            let TargetConfiguration::Outbound { remote, .. } = target else {
                panic!("{target:?}");
            };
            assert!(allowlist.names(&remote), "{remote:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_allowlist_is_said_in_the_words_of_aws() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "No allowlist field"),
            (b"services: []", "No allowlist field"),
            (b"allowlist:\n", "No allowlist field"),
            (b"allowlist: [", "Bad yaml format"),
            (b"allowlist: 7", "Bad yaml format"),
            (b"allowlist: [{port: 443}]", "No address field in entry 1"),
            (
                b"allowlist: [{address: a, port: 1}, {address: a}]",
                "No port field or invalid type in entry 2",
            ),
            (b"allowlist: [{address: a, port: 65536}]", "Bad yaml format"),
            (b"allowlist: [&a {address: a, port: 1}, *a]", "Bad yaml format"),
        ];
        for (yaml, expected) in cases {
            let error = Allowlist::parse(yaml).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{}: {error}", yaml.escape_ascii());
        }
    }

    #[test]
    fn targets_of_each_kind_are_read() {
        let yaml = b"targets:\n\
            - {local_port: 8000, remote_addr: example.com, remote_port: 443}\n\
            - {local_socket: /run/proxy.sock, remote_addr: '::1', remote_port: 5432}\n\
            - {inbound: '0.0.0.0:8443', enclave_cid: 16, enclave_port: 443}\n\
            - {inbound: '[::1]:9443', enclave_socket: /run/vsock.sock, enclave_port: 443}\n";
        let outbound = |listen, address, port| TargetConfiguration::Outbound {
            listen,
            remote: service(address, port),
        };
        let inbound = |listen: &str, enclave| TargetConfiguration::Inbound {
            listen: listen.parse().unwrap(),
            enclave,
        };
        let expected = [
            outbound(ListenAddress::Vsock(8000), "example.com", 443),
            outbound(ListenAddress::Unix("/run/proxy.sock".into()), "::1", 5432),
            inbound("0.0.0.0:8443", EnclaveAddress::Vsock { cid: 16, port: 443 }),
            inbound(
                "[::1]:9443",
                EnclaveAddress::Unix {
                    socket: "/run/vsock.sock".into(),
                    port: 443,
                },
            ),
        ];
        assert_eq!(Targets::parse(yaml).unwrap().0, expected);
    }

    #[test]
    fn targets_whose_keys_do_not_go_together_are_refused_by_number() {
        let good = "{local_port: 1, remote_addr: a, remote_port: 1}";
        for wrong in [
            "{}",
            "{local_port: 1, remote_addr: a}",
            "{local_port: 1, local_socket: b, remote_addr: a, remote_port: 1}",
            "{local_port: 1, remote_addr: a, remote_port: 1, enclave_cid: 16}",
            "{inbound: '1.2.3.4:5', enclave_cid: 16}",
            "{inbound: '1.2.3.4:5', enclave_cid: 16, enclave_socket: a, enclave_port: 1}",
            "{inbound: '1.2.3.4:5', enclave_cid: 16, enclave_port: 1, remote_port: 1}",
        ] {
            let yaml = format!("targets: [{good}, {wrong}]");
            let error = Targets::parse(yaml.as_bytes()).unwrap_err();
            assert!(matches!(error, ConfigurationError::Target(2)), "{wrong}: {error}");
        }
        for (yaml, expected) in [
            ("targets: []", "it has no targets"),
            ("allowlist: []", "it has no targets"),
            ("targets: [{lokal_port: 1}]", "Bad yaml format"),
            ("targets: [{inbound: everywhere}]", "Bad yaml format"),
        ] {
            let error = Targets::parse(yaml.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{yaml}: {error}");
        }
        let many = format!("targets: [{}]", [good; MAX_TARGETS + 1].join(", "));
        let error = Targets::parse(many.as_bytes()).unwrap_err();
        assert!(matches!(error, ConfigurationError::TooManyTargets), "{error}");
    }
}
