//! A server that an outbound target connects to: its addresses, which of them are allowed, and connecting.
//!
//! It is allowed if the allowlist has its name, whatever that resolves to; else by address: those of its addresses that an
//! entry with the same port is, or resolves to. Either is looked up again as connections come, and kept for as long as the
//! name servers allow, within limits: many at once ask once, and a server that moves is found. Failures are kept for a
//! moment: whoever comes while name servers are down is not to wait for them in a row.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::configuration::{Allowlist, TcpSide};
use crate::resolve::{self, Family, ResolveError};

/// How long addresses are used at least before they are asked for again, and how long a failure is.
const KEPT: Duration = Duration::from_secs(2);

/// The same for addresses that are allowed because names on the allowlist have them, too: each of these is looked up.
const KEPT_BY_ADDRESS: Duration = Duration::from_secs(30);

/// How long addresses are used at most.
const MOST_KEPT: Duration = Duration::from_mins(1);

/// How long one address may take to answer.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);

/// How long all addresses may take together.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Why a server is not connected to.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error("The given address and port are not allowed")]
    NotAllowed,
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("{address} cannot be connected to: {reason}")]
    Connect { address: SocketAddr, reason: String },
}

/// Those that may be connected to: one at least.
type Addresses = Result<Arc<[SocketAddr]>, RemoteError>;

/// A server, and what is known of it.
#[derive(Debug)]
pub(crate) struct Remote {
    server: TcpSide,
    family: Family,
    allowlist: Arc<Allowlist>,
    /// What was found, and until when it is used.
    found: Mutex<Option<(Addresses, Instant)>>,
}

impl Remote {
    pub(crate) fn new(server: TcpSide, family: Family, allowlist: Arc<Allowlist>) -> Self {
        Self {
            server,
            family,
            allowlist,
            found: Mutex::new(None),
        }
    }

    /// Whether it is allowed, before anybody wants to be connected. A name on the allowlist is, even if nobody can resolve
    /// it yet.
    pub(crate) async fn check(&self) -> Result<(), RemoteError> {
        match self.addresses().await {
            Ok(_) => Ok(()),
            Err(error) if self.is_named() => {
                tracing::warn!(server = %self, %error, "connections will be closed until this is mended");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A connection to the first of its addresses that answers.
    pub(crate) async fn connect(&self) -> Result<TcpStream, RemoteError> {
        connect_to_first(&self.addresses().await?).await
    }

    fn is_named(&self) -> bool {
        self.allowlist.names(&self.server)
    }

    /// Its addresses that are allowed.
    async fn addresses(&self) -> Addresses {
        // Held while name servers are asked, so that they are asked once.
        let mut found = self.found.lock().await;
        if let Some((addresses, until)) = &*found
            && Instant::now() < *until
        {
            return addresses.clone();
        }
        let (addresses, kept) = match self.resolve().await {
            Ok((addresses, kept)) => (Ok(addresses), kept),
            Err(error) => (Err(error), KEPT),
        };
        *found = Some((addresses.clone(), Instant::now() + kept));
        addresses
    }

    /// The same, and how long they may be used.
    async fn resolve(&self) -> Result<(Arc<[SocketAddr]>, Duration), RemoteError> {
        let port = self.server.port;
        if self.allowlist.at_port(port).next().is_none() {
            return Err(RemoteError::NotAllowed);
        }
        let mut found = resolve::addresses(&self.server.address, self.family).await?;
        let mut least = KEPT;
        if !self.is_named() {
            let allowed = self.allowed_addresses(&found.addresses).await;
            found.addresses.retain(|address| allowed.contains(address));
            least = KEPT_BY_ADDRESS;
        }
        if found.addresses.is_empty() {
            return Err(RemoteError::NotAllowed);
        }
        let addresses = found.addresses.into_iter();
        let addresses = addresses.map(|address| SocketAddr::new(address, port));
        Ok((addresses.collect(), found.time_to_live.clamp(least, MOST_KEPT)))
    }

    /// What entries with the server's port are or resolve to. Names are resolved only if they are needed for one of `wanted`;
    /// those that cannot be resolved allow nothing.
    async fn allowed_addresses(&self, wanted: &[IpAddr]) -> HashSet<IpAddr> {
        let entries = self.allowlist.at_port(self.server.port);
        let (literal, names): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.parse::<IpAddr>().is_ok());
        let mut allowed: HashSet<IpAddr> = literal.iter().filter_map(|entry| entry.parse().ok()).collect();
        if wanted.iter().all(|address| allowed.contains(address)) {
            return allowed;
        }
        let mut lookups = JoinSet::new();
        for name in names {
            let (name, family) = (name.to_owned(), self.family);
            lookups.spawn(async move { resolve::addresses(&name, family).await });
        }
        while let Some(found) = lookups.join_next().await {
            match found {
                Ok(Ok(found)) => allowed.extend(found.addresses),
                Ok(Err(error)) => tracing::debug!(%error, "an entry of the allowlist allows nothing"),
                Err(_) => {}
            }
        }
        allowed
    }
}

/// Each has its time, and all of them together.
async fn connect_to_first(addresses: &[SocketAddr]) -> Result<TcpStream, RemoteError> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    let mut failure = RemoteError::NotAllowed;
    for &address in addresses {
        let connecting = timeout(ADDRESS_LIMIT, TcpStream::connect(address));
        let reason = match timeout_at(deadline, connecting).await {
            Ok(Ok(Ok(stream))) => return Ok(stream),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(_)) | Err(_) => io::Error::from(io::ErrorKind::TimedOut).to_string(),
        };
        failure = RemoteError::Connect { address, reason };
    }
    Err(failure)
}

/// Name and port.
impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.server.fmt(f)
    }
}

impl fmt::Display for TcpSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address.contains(':') {
            write!(f, "[{}]:{}", self.address, self.port)
        } else {
            write!(f, "{}:{}", self.address, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(address: &str, port: u16, allowlist: &str) -> Remote {
        let server = TcpSide {
            address: address.into(),
            port,
        };
        let allowlist = Allowlist::parse(allowlist.as_bytes()).unwrap();
        Remote::new(server, Family::Any, Arc::new(allowlist))
    }

    #[tokio::test]
    async fn another_name_of_an_allowed_address_is_allowed_at_its_port_alone() {
        let allowlist = "allowlist: [{address: localhost, port: 80}, {address: 127.0.0.1, port: 81}]";
        // By what an entry resolves to, and by what the server resolves to.
        let by_name = remote("127.0.0.1", 80, allowlist).addresses().await.unwrap();
        assert_eq!(*by_name, ["127.0.0.1:80".parse().unwrap()]);
        let by_address = remote("localhost", 81, allowlist).addresses().await.unwrap();
        assert_eq!(*by_address, ["127.0.0.1:81".parse().unwrap()]);
        for (address, port) in [("127.0.0.2", 80), ("127.0.0.1", 82), ("localhost", 82)] {
            let refused = remote(address, port, allowlist).addresses().await;
            assert!(
                matches!(refused, Err(RemoteError::NotAllowed)),
                "{address}:{port}: {refused:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_next_address_is_tried_if_one_refuses_and_the_last_refusal_is_told() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = server.local_addr().unwrap();
        // Nobody listens at these, whose port is taken at 127.0.0.1 alone.
        let absent = ["127.0.0.21", "127.0.0.22"].map(|ip| SocketAddr::new(ip.parse().unwrap(), here.port()));

        let connected = connect_to_first(&[absent[0], absent[1], here]).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), here);
        let refused = connect_to_first(&absent).await.unwrap_err();
        assert!(
            matches!(refused, RemoteError::Connect { address, .. } if address == absent[1]),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_name_on_the_allowlist_need_not_resolve_yet_and_one_that_is_not_must() {
        let allowlist = "allowlist: [{address: absent.invalid, port: 80}]";
        let named = remote("absent.invalid", 80, allowlist);
        named.check().await.unwrap();
        assert!(matches!(named.connect().await, Err(RemoteError::Resolve(_))));
        let other = remote("other.invalid", 80, allowlist).check().await;
        assert!(matches!(other, Err(RemoteError::Resolve(_))), "{other:?}");
    }
}
