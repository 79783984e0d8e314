//! HTTP with one server about one repository: authentication, redirects, second tries.

use std::io::Read;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{ACCEPT, AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use ureq::http::uri::Scheme;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use crate::certificates::CertificateFiles;
use crate::challenge::Challenge;
use crate::credentials::{CredentialFiles, Credentials};
use crate::error::{FetchError, printable};
use crate::reference::Reference;

/// Time for a connection, with TLS, and for a silence of the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);
/// A token's document, or what a server says about an error.
const ANSWER_LIMIT: u64 = 64 << 10;
/// Redirects followed; registries send to a storage service, which may send to another region.
const REDIRECT_LIMIT: usize = 5;
/// Waits before a second and a third try.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];
/// Who asks, as registries' logs have it.
const USER_AGENT: &str = concat!("enclaved/", env!("CARGO_PKG_VERSION"));

/// A server, and the path that all of its API is below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and port, as the user names them in messages and files.
    pub(crate) host: String,
    /// Host and port that are connected to.
    pub(crate) authority: String,
    /// Before `/v2/`; empty for most.
    pub(crate) prefix: String,
    /// Whether TLS may be left out; only on this machine.
    pub(crate) security: Security,
    /// The registry that a mirror is asked about (the query `ns` of the OCI distribution specification).
    pub(crate) namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    Tls,
    /// TLS if the server speaks it.
    Opportunistic,
    None,
}

/// Whether a host with an optional port is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let (name, _) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let name = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// One repository of one server.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    repository: String,
    agent: Agent,
    /// Whether TLS is spoken, once that is known.
    is_secure: OnceLock<bool>,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<Zeroizing<String>>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    errors: Vec<ErrorItem>,
}

#[derive(Deserialize)]
struct ErrorItem {
    code: Option<String>,
    message: Option<String>,
}

impl Client {
    pub(crate) fn new(
        endpoint: Endpoint,
        repository: &str,
        certificates: &CertificateFiles,
        credentials: &CredentialFiles,
    ) -> Result<Self, FetchError> {
        // The credentials of a mirror are its own: it must not learn those of the registry that it stands for.
        let named: Option<Reference> = format!("{}/{repository}", endpoint.host).parse().ok();
        let credentials = named.map_or(Ok(None), |reference| credentials.find(&reference))?;
        let mut config = Agent::config_builder()
            .tls_config(certificates.tls_config(&endpoint.host)?)
            .user_agent(USER_AGENT)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .timeout_per_write(Some(SILENCE_TIMEOUT));
        if endpoint.security != Security::Tls {
            // Nothing on this machine is behind a proxy.
            config = config.proxy(None);
        }
        let is_secure = match endpoint.security {
            Security::Tls => OnceLock::from(true),
            Security::Opportunistic => OnceLock::new(),
            Security::None => OnceLock::from(false),
        };
        Ok(Self {
            agent: config.build().into(),
            endpoint,
            repository: repository.to_owned(),
            is_secure,
            credentials,
            authorization: Mutex::new(None),
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.endpoint.host
    }

    /// Asks for `path` below the repository and has `read` take the answer. What failed for a passing reason is tried again.
    ///
    /// `what` is what messages call it.
    pub(crate) fn get<T>(
        &self,
        path: &str,
        what: &str,
        accept: &str,
        read: &mut dyn FnMut(Response<Body>) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let outcome = self.get_authorized(path, what, accept).and_then(&mut *read);
            match (outcome, delays.next()) {
                (Err(error), Some(delay)) if error.is_transient() => thread::sleep(*delay),
                (outcome, _) => return outcome,
            }
        }
    }

    /// An answer of success, after authentication if that is wanted.
    fn get_authorized(&self, path: &str, what: &str, accept: &str) -> Result<Response<Body>, FetchError> {
        let response = self.get_once(path, what, accept)?;
        if response.status() != 401 {
            return self.successful(response, what);
        }
        // The first time, or a token has expired.
        self.authorize(&response, what)?;
        let response = self.get_once(path, what, accept)?;
        self.successful(response, what)
    }

    /// One request and the redirects that it leads to.
    fn get_once(&self, path: &str, what: &str, accept: &str) -> Result<Response<Body>, FetchError> {
        let mut query = String::new();
        if let Some(namespace) = &self.endpoint.namespace {
            // Host and port have no character that would have to be escaped.
            query = format!("?ns={namespace}");
        }
        let Endpoint {
            authority, prefix, ..
        } = &self.endpoint;
        let uri = format!(
            "{}://{authority}{prefix}/v2/{}/{path}{query}",
            self.scheme()?,
            self.repository
        );
        let first = self.uri(&uri, what)?;
        let mut uri = first.clone();
        for _ in 0..=REDIRECT_LIMIT {
            let mut request = self.agent.get(&uri).header(ACCEPT, accept);
            if uri.authority() == first.authority()
                && let Some(authorization) = &*self.authorization()
            {
                request = request.header(AUTHORIZATION, authorization.as_str());
            }
            let response = request.call().map_err(|error| self.unreachable(&uri, &error))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            uri = self.redirected(&uri, &response, what)?;
        }
        Err(self.protocol(what, "it redirects again and again"))
    }

    fn authorization(&self) -> MutexGuard<'_, Option<Zeroizing<String>>> {
        // It is replaced as a whole.
        self.authorization.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `https` or `http`.
    fn scheme(&self) -> Result<Scheme, FetchError> {
        let is_secure = if let Some(known) = self.is_secure.get() {
            *known
        } else {
            let known = self.speaks_tls()?;
            *self.is_secure.get_or_init(|| known)
        };
        Ok(if is_secure { Scheme::HTTPS } else { Scheme::HTTP })
    }

    /// Whether a server on this machine speaks TLS. One whose certificate is not trusted does.
    fn speaks_tls(&self) -> Result<bool, FetchError> {
        let uri = self.uri(&format!("https://{}/v2/", self.endpoint.authority), "its API")?;
        match self.agent.get(&uri).call() {
            Ok(_) => Ok(true),
            Err(error) => match tls_error(&error) {
                Some(rustls::Error::InvalidMessage(_)) => Ok(false),
                Some(_) => Err(self.unreachable(&uri, &error)),
                None => match &error {
                    // It understood nothing and hung up.
                    ureq::Error::Io(error)
                        if matches!(
                            error.kind(),
                            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                        ) =>
                    {
                        Ok(false)
                    }
                    _ => Err(self.unreachable(&uri, &error)),
                },
            },
        }
    }

    /// Where an answer sends to.
    fn redirected(&self, from: &Uri, response: &Response<Body>, what: &str) -> Result<Uri, FetchError> {
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| self.protocol(what, "it redirects to nowhere"))?;
        let whole = if location.starts_with('/') && !location.starts_with("//") {
            let authority = from.authority().map_or("", |authority| authority.as_str());
            format!("{}://{authority}{location}", from.scheme_str().unwrap_or("https"))
        } else {
            location.to_owned()
        };
        let uri = self.uri(&whole, what)?;
        self.check_security(&uri, what)?;
        Ok(uri)
    }

    /// Refuses what would go over a network in the clear.
    fn check_security(&self, uri: &Uri, what: &str) -> Result<(), FetchError> {
        let is_secure = uri.scheme() == Some(&Scheme::HTTPS);
        let is_local = self.endpoint.security != Security::Tls
            && uri.authority().is_some_and(|to| is_loopback(to.as_str()));
        if is_secure || is_local {
            Ok(())
        } else {
            Err(self.protocol(what, "it sends to a server without TLS"))
        }
    }

    fn uri(&self, text: &str, what: &str) -> Result<Uri, FetchError> {
        // With user information, a request would go to another server than a glance at the address tells.
        text.parse::<Uri>()
            .ok()
            .filter(|uri| {
                uri.authority()
                    .is_some_and(|authority| !authority.as_str().contains('@'))
            })
            .filter(|uri| matches!(uri.scheme_str(), Some("https" | "http")))
            .ok_or_else(|| self.protocol(what, "it sends to what is no address"))
    }

    /// Gets the authorization that an answer with status 401 asks for.
    fn authorize(&self, response: &Response<Body>, what: &str) -> Result<(), FetchError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenges: Vec<Challenge> = headers
            .filter_map(|value| value.to_str().ok())
            .flat_map(Challenge::parse_all)
            .collect();
        let authorization = match challenges.first() {
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => self.token(realm, service.as_deref(), scope.as_deref(), what)?,
            Some(Challenge::Basic) => self
                .credentials
                .as_ref()
                .and_then(Credentials::basic)
                .ok_or_else(|| self.no_credentials())?,
            None => return Err(self.protocol(what, "it wants to know who asks and does not say how")),
        };
        *self.authorization() = Some(authorization);
        Ok(())
    }

    /// A token for pulling from the repository (Docker's token authentication specification).
    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        what: &str,
    ) -> Result<Zeroizing<String>, FetchError> {
        let uri = self.uri(realm, what)?;
        self.check_security(&uri, what)?;
        let default_scope = format!("repository:{}:pull", self.repository);
        let scope = scope.unwrap_or(&default_scope);
        let response = match &self.credentials {
            Some(Credentials::Identity(token)) => self.agent.post(&uri).send_form([
                ("grant_type", "refresh_token"),
                ("service", service.unwrap_or_default()),
                ("scope", scope),
                ("client_id", "enclaved"),
                ("refresh_token", token.as_str()),
            ]),
            credentials => {
                let mut request = self.agent.get(&uri).query("scope", scope);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                if let Some(basic) = credentials.as_ref().and_then(Credentials::basic) {
                    request = request.header(AUTHORIZATION, basic.as_str());
                }
                request.call()
            }
        };
        let response = response.map_err(|error| self.unreachable(&uri, &error))?;
        let response = self.successful(response, what)?;
        let body = Zeroizing::new(answer(response));
        let token = serde_json::from_slice::<TokenAnswer>(&body)
            .ok()
            .and_then(|answer| answer.token.or(answer.access_token))
            .filter(|token| token.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| self.protocol(what, "its token server gives no token"))?;
        Ok(Zeroizing::new(format!("Bearer {}", *token)))
    }

    /// Turns an answer that is no success into an error.
    fn successful(&self, response: Response<Body>, what: &str) -> Result<Response<Body>, FetchError> {
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(response);
        }
        let body = answer(response);
        let message = serde_json::from_slice::<ErrorAnswer>(&body)
            .ok()
            .and_then(|answer| answer.errors.into_iter().next())
            .map(|item| {
                let parts: Vec<String> = [item.code, item.message].into_iter().flatten().collect();
                printable(&parts.join(": "))
            })
            .unwrap_or_default();
        let (host, what) = (self.endpoint.host.clone(), what.to_owned());
        let repository = self.repository.clone();
        Err(match status {
            401 | 403 if self.credentials.is_none() => self.no_credentials(),
            401 | 403 => FetchError::Refused {
                host,
                repository,
                message,
            },
            404 => FetchError::NotFound { host, what, message },
            _ => FetchError::Status {
                host,
                what,
                status,
                message,
            },
        })
    }

    fn no_credentials(&self) -> FetchError {
        FetchError::NoCredentials {
            host: self.endpoint.host.clone(),
            repository: self.repository.clone(),
        }
    }

    pub(crate) fn protocol(&self, what: &str, reason: &str) -> FetchError {
        FetchError::Protocol {
            host: self.endpoint.host.clone(),
            what: what.to_owned(),
            reason: reason.to_owned(),
        }
    }

    /// The error for a request without an answer. Of the address only the host is shown: a redirect's query is a secret.
    fn unreachable(&self, uri: &Uri, error: &ureq::Error) -> FetchError {
        let mut reason = match error {
            ureq::Error::HostNotFound => "its name is not known".to_owned(),
            ureq::Error::Timeout(_) => "it does not answer in time".to_owned(),
            ureq::Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority != self.endpoint.authority {
            reason = format!("it sends to `{authority}`, where this failed: {reason}");
        }
        let host = self.endpoint.host.clone();
        let is_transient = match error {
            ureq::Error::Timeout(_) => true,
            ureq::Error::Io(error) => error.kind() != std::io::ErrorKind::ConnectionRefused,
            _ => false,
        };
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(_)) => FetchError::Untrusted { host, reason },
            _ => FetchError::Unreachable {
                host,
                reason,
                is_transient,
            },
        }
    }
}

/// What rustls says, if it is what failed.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// A short body; what cannot be read is left out.
fn answer(response: Response<Body>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // It is only for a message, or is found not to be whole when it is parsed.
    let _ = response
        .into_body()
        .into_reader()
        .take(ANSWER_LIMIT)
        .read_to_end(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1",
            "[::2]:5000",
            "registry:5000",
            "",
            "::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
