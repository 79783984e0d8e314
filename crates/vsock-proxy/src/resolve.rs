//! Names to IP addresses, by the system's resolver.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

/// How long the resolver may take.
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

/// All addresses of `host`, in the resolver's order: one at least. An IP address is its own, and nobody is asked.
pub(crate) async fn addresses(host: &str, family: Family) -> Result<Vec<IpAddr>, ResolveError> {
    let mut found = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => looked_up(host).await?,
    };
    found.retain(|address| family.has(address));
    if found.is_empty() {
        return Err(ResolveError::Family { host: host.into() });
    }
    Ok(found)
}

async fn looked_up(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let failed = |reason: String| ResolveError::Failed {
        host: host.into(),
        reason,
    };
    match timeout(LIMIT, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.map(|address| address.ip()).collect();
            if found.is_empty() {
                return Err(failed("it has no address".into()));
            }
            Ok(found)
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(ResolveError::TooLong { host: host.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ip_address_is_its_own_if_its_family_is_asked_for() {
        for (text, family) in [("127.0.0.1", Family::V4), ("::1", Family::V6)] {
            let expected = vec![text.parse::<IpAddr>().unwrap()];
            assert_eq!(addresses(text, family).await.unwrap(), expected);
            assert_eq!(addresses(text, Family::Any).await.unwrap(), expected);
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
