//! The command line: AWS's, and what is added to it.
//!
//! Ports and the number of workers are taken as text: what is wrong with them is an error with exit code 1, as with AWS,
//! not a usage error.

use std::path::PathBuf;

use clap::Parser;

use crate::configuration::{TargetConfiguration, TcpSide};
use crate::enclave_side::ListenAddress;
use crate::error::StartError;
use crate::resolve::Family;

/// The version of AWS's program that this one stands for.
const AWS_VERSION: &str = "1.0.2";

const AFTER_HELP: &str = "\
Examples:
  vsock-proxy 8000 kms.us-east-1.amazonaws.com 443
  vsock-proxy --targets /etc/nitro_enclaves/vsock-proxy-targets.yaml

The file of targets; one file may have both `targets` and `allowlist`:
  targets:
  - {local_port: 8000, remote_addr: kms.us-east-1.amazonaws.com, remote_port: 443}
  - {local_socket: /run/proxy.sock, remote_addr: 10.0.0.7, remote_port: 5432}
  - {inbound: \"0.0.0.0:8443\", enclave_cid: 16, enclave_port: 443}
  - {inbound: \"[::1]:9443\", enclave_socket: /run/enclaved/ID/vsock.sock, enclave_port: 443}

SIGUSR1 has it print what each target has passed on. RUST_LOG=info prints that every minute, RUST_LOG=debug each connection.
Names are those of /etc/hosts and of the name servers of /etc/resolv.conf.";

/// The vsock-proxy command line.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "vsock-proxy",
    display_name = "Vsock-TCP proxy",
    version = AWS_VERSION,
    about = "Passes connections of enclaves on to TCP servers, and back",
    after_help = AFTER_HELP
)]
pub struct Arguments {
    /// Use IPv4 addresses of the server only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,

    /// Use IPv6 addresses of the server only
    #[arg(short = '6', long)]
    ipv6: bool,

    /// Connections that a target may have at once; more wait [default: some thousands for all targets]
    #[arg(short = 'w', long = "num_workers", value_name = "N")]
    workers: Option<String>,

    /// YAML file of the servers that may be connected to
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/nitro_enclaves/vsock-proxy.yaml"
    )]
    pub(crate) config: PathBuf,

    /// YAML file of targets, in place of the three arguments
    #[arg(long, value_name = "FILE", conflicts_with_all = ["local_port", "remote_addr", "remote_port"])]
    pub(crate) targets: Option<PathBuf>,

    /// Port at which enclaves reach the server, at the parent's CID
    #[arg(value_name = "local_port", required_unless_present = "targets")]
    local_port: Option<String>,

    /// Name or IP address of the server
    #[arg(value_name = "remote_addr", required_unless_present = "targets")]
    remote_addr: Option<String>,

    /// TCP port of the server
    #[arg(value_name = "remote_port", required_unless_present = "targets")]
    remote_port: Option<String>,
}

impl Arguments {
    /// The one target that the three arguments name, if they are there.
    pub(crate) fn target(&self) -> Result<Option<TargetConfiguration>, StartError> {
        let (Some(local), Some(address), Some(port)) =
            (&self.local_port, &self.remote_addr, &self.remote_port)
        else {
            return Ok(None);
        };
        let listen = ListenAddress::Vsock(local.parse().map_err(|_| StartError::LocalPort)?);
        let remote = TcpSide {
            address: address.clone(),
            port: port.parse().map_err(|_| StartError::RemotePort)?,
        };
        Ok(Some(TargetConfiguration::Outbound { listen, remote }))
    }

    /// The most connections of a target, if there is to be such a limit.
    pub(crate) fn most_connections(&self) -> Result<Option<usize>, StartError> {
        let Some(workers) = &self.workers else {
            return Ok(None);
        };
        match workers.parse() {
            Ok(0) => Err(StartError::NoWorkers),
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(StartError::Workers),
        }
    }

    pub(crate) fn family(&self) -> Family {
        match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            _ => Family::Any,
        }
    }
}
