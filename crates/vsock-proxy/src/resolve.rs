//! Names to IP addresses: those of `/etc/hosts`, else what the name servers of `/etc/resolv.conf` answer.
//!
//! The C library is not asked. It loads what `/etc/nsswitch.conf` names, and a static program, as this one is when it is
//! installed, can load nothing that was not built together with it. What is asked here waits for no thread either, so that
//! a name server that does not answer delays nobody else. Both files are read for each name: a change holds at once.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::timeout;

/// How long name servers may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Which addresses are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Any,
    V4,
    V6,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("{host} cannot be resolved: {reason}")]
    Failed { host: String, reason: String },
    #[error("{host} cannot be resolved: no answer within {} s", LIMIT.as_secs())]
    TooLong { host: String },
    #[error("{host} has no address of the family that -4 or -6 asks for")]
    Family { host: String },
}

impl Family {
    fn has(self, address: &IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// All addresses of a name of one family or both: one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// In the order in which they are to be tried.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long the name servers let them be used. Zero for those of a file, which may change at any time.
    pub(crate) time_to_live: Duration,
}

/// The addresses of `host`. An IP address is its own, and nobody is asked.
pub(crate) async fn addresses(host: &str, family: Family) -> Result<Resolved, ResolveError> {
    let mut found = match host.parse() {
        Ok(address) => Resolved {
            addresses: vec![address],
            time_to_live: Duration::MAX,
        },
        Err(_) => looked_up(host, family).await?,
    };
    found.addresses.retain(|address| family.has(address));
    if found.addresses.is_empty() {
        return Err(ResolveError::Family { host: host.into() });
    }
    Ok(found)
}

async fn looked_up(host: &str, family: Family) -> Result<Resolved, ResolveError> {
    let failed = |reason: String| ResolveError::Failed {
        host: host.into(),
        reason,
    };
    let name = Name::from_utf8(host).map_err(|error| failed(error.to_string()))?;
    let listed = in_hosts_file(&name);
    if !listed.is_empty() {
        return Ok(Resolved {
            addresses: listed,
            time_to_live: Duration::ZERO,
        });
    }
    match timeout(LIMIT, answered(name, family)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) if error.is_nx_domain() => Err(failed("there is no such name".into())),
        Ok(Err(error)) if error.is_no_records_found() => Err(failed("it has no address".into())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(ResolveError::TooLong { host: host.into() }),
    }
}

/// A name that is listed for one family has no address of the other: name servers are not asked for that.
fn in_hosts_file(name: &Name) -> Vec<IpAddr> {
    // A file that is not there lists nothing.
    let hosts = Hosts::from_system().unwrap_or_default();
    let mut addresses = Vec::new();
    for family in [RecordType::A, RecordType::AAAA] {
        if let Some(found) = hosts.lookup_static_host(&Query::query(name.clone(), family)) {
            addresses.extend(found.answers().iter().filter_map(|record| record.data.ip_addr()));
        }
    }
    addresses
}

async fn answered(name: Name, family: Family) -> Result<Resolved, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = match family {
        Family::Any => LookupIpStrategy::Ipv4AndIpv6,
        Family::V4 => LookupIpStrategy::Ipv4Only,
        Family::V6 => LookupIpStrategy::Ipv6Only,
    };
    let found = builder.build()?.lookup_ip(name).await?;
    Ok(Resolved {
        addresses: found.iter().collect(),
        time_to_live: found.valid_until().saturating_duration_since(Instant::now()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ip_address_is_its_own_if_its_family_is_asked_for() {
        for (text, family) in [("127.0.0.1", Family::V4), ("::1", Family::V6)] {
            let expected = vec![text.parse::<IpAddr>().unwrap()];
            assert_eq!(addresses(text, family).await.unwrap().addresses, expected);
            assert_eq!(addresses(text, Family::Any).await.unwrap().addresses, expected);
        }
        let error = addresses("127.0.0.1", Family::V6).await.unwrap_err();
        assert!(matches!(error, ResolveError::Family { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_named() {
        let error = addresses("does-not-exist.invalid", Family::Any)
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("does-not-exist.invalid cannot be resolved"),
            "{error}"
        );
    }
}
