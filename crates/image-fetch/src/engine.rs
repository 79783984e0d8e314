//! Docker or Podman on this machine, over HTTP on a socket: whether an image is there, and the image itself.
//!
//! Podman answers Docker's API. Sockets are tried in this order: `DOCKER_HOST`; Docker's; the user's own Docker's or Podman's;
//! Podman's.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Agent, Body};

use crate::certificates::{engine_tls_config, usual_tls_config};
use crate::error::{FetchError, printable};
use crate::reference::{Reference, ReferenceError};

/// Time until the engine answers; it may have to pack the image first.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(10);
/// Time until it says whether it has an image.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a connection, and for an engine to say that it is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What an engine says about an error.
const ANSWER_LIMIT: u64 = 64 << 10;
/// Size of reads and writes.
const BUFFER: usize = 256 << 10;

/// A container engine that answers.
#[derive(Debug)]
pub struct Engine {
    agent: Agent,
    address: String,
    /// `http://host`; over a Unix socket the host means nothing.
    base: String,
}

/// Why an engine is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// `DOCKER_HOST` is not understood.
    #[error("DOCKER_HOST is `{0}`; understood are unix:///PATH and tcp://HOST:PORT")]
    Address(String),
    /// Not the name of an image.
    #[error("`{name}` is not the name of an image")]
    Name {
        /// The text.
        name: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// It does not answer.
    #[error("the container engine at `{address}` does not answer: {reason}")]
    Unreachable {
        /// The socket.
        address: String,
        /// What failed.
        reason: String,
    },
    /// Its certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] FetchError),
    /// It answers with an error.
    #[error("the container engine at `{address}` answers with HTTP status {status}: {message}")]
    Status {
        /// The socket.
        address: String,
        /// The status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// The image could not be kept.
    #[error("cannot write the image to a temporary file")]
    Write(#[source] io::Error),
    /// The image is larger than allowed.
    #[error("the image takes more than the limit of {0} bytes")]
    TooLarge(u64),
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, or else the first that answers; `None` if none does.
    ///
    /// # Errors
    /// Only for `DOCKER_HOST`: it is not understood, or nobody is there.
    pub fn find(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<Self>, EngineError> {
        if let Some(address) = variable("DOCKER_HOST") {
            let certificates = tls_directory(variable);
            let engine = Self::at(&address.to_string_lossy(), certificates.as_deref())?;
            engine.ping()?;
            return Ok(Some(engine));
        }
        let user = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        let of_user = user
            .iter()
            .flat_map(|directory| ["docker.sock", "podman/podman.sock"].map(|name| directory.join(name)));
        let sockets = [PathBuf::from("/var/run/docker.sock")]
            .into_iter()
            .chain(of_user)
            .chain([PathBuf::from("/run/podman/podman.sock")]);
        // Whoever is not there, or not for this user, need not be.
        Ok(sockets
            .filter(|socket| socket.exists())
            .map(|socket| Self::on_socket(&socket))
            .find(|engine| engine.ping().is_ok()))
    }

    fn at(address: &str, certificates: Option<&Path>) -> Result<Self, EngineError> {
        if let Some(path) = address.strip_prefix("unix://") {
            return Ok(Self::on_socket(Path::new(path)));
        }
        let host = address
            .strip_prefix("tcp://")
            .or_else(|| address.strip_prefix("http://"))
            .or_else(|| address.strip_prefix("https://"))
            .map(|host| host.trim_end_matches('/'))
            .filter(|host| !host.contains(['/', '@', '?', '#']))
            .ok_or_else(|| EngineError::Address(address.to_owned()))?;
        let tls = certificates.map_or_else(|| Ok(usual_tls_config()), engine_tls_config)?;
        let config = settings().tls_config(tls);
        let scheme = if certificates.is_some() || address.starts_with("https") {
            "https"
        } else {
            "http"
        };
        Ok(Self {
            agent: config.build().into(),
            address: address.to_owned(),
            base: format!("{scheme}://{host}"),
        })
    }

    fn on_socket(path: &Path) -> Self {
        Self {
            agent: Agent::with_parts(
                settings().proxy(None).build(),
                SocketConnector(path.to_owned()),
                NoResolver,
            ),
            address: path.display().to_string(),
            base: "http://engine".to_owned(),
        }
    }

    /// Where it is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it has an image. Its name is taken as the user gave it: Podman calls what it has built itself by short names.
    ///
    /// # Errors
    /// [`EngineError::Name`], [`EngineError::Unreachable`], [`EngineError::Status`].
    pub fn has(&self, name: &str) -> Result<bool, EngineError> {
        let response = self.get(&format!("/images/{}/json", checked(name)?), LOOK_TIMEOUT)?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.status(response)),
        }
    }

    /// Writes an image into a file, as `docker save` does. `progress` gets the bytes that have come so far.
    ///
    /// # Errors
    /// [`EngineError`]; [`EngineError::TooLarge`] above `limit` bytes.
    pub fn save(
        &self,
        name: &str,
        mut file: &File,
        limit: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), EngineError> {
        let response = self.get(&format!("/images/{}/get", checked(name)?), ANSWER_TIMEOUT)?;
        if response.status() != 200 {
            return Err(self.status(response));
        }
        let mut source = response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER];
        let mut saved = 0;
        loop {
            let count = match source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreachable(&error.to_string())),
            };
            saved += count as u64;
            if saved > limit {
                return Err(EngineError::TooLarge(limit));
            }
            file.write_all(&buffer[..count]).map_err(EngineError::Write)?;
            progress(saved);
        }
    }

    fn ping(&self) -> Result<(), EngineError> {
        let response = self.get("/_ping", CONNECT_TIMEOUT)?;
        if response.status() == 200 {
            Ok(())
        } else {
            Err(self.status(response))
        }
    }

    /// `within` is for all of the answer but its body.
    fn get(&self, path: &str, within: Duration) -> Result<ureq::http::Response<Body>, EngineError> {
        let address = format!("{}{path}", self.base);
        let request = self.agent.get(address).config();
        let request = request.timeout_recv_response(Some(within)).build();
        request.call().map_err(|error| match error {
            ureq::Error::Io(error) => self.unreachable(&error.to_string()),
            other => self.unreachable(&other.to_string()),
        })
    }

    fn unreachable(&self, reason: &str) -> EngineError {
        EngineError::Unreachable {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }

    fn status(&self, response: ureq::http::Response<Body>) -> EngineError {
        let status = response.status().as_u16();
        let mut text = Vec::new();
        // It is only for a message.
        let _ = response
            .into_body()
            .into_reader()
            .take(ANSWER_LIMIT)
            .read_to_end(&mut text);
        EngineError::Status {
            address: self.address.clone(),
            status,
            message: printable(&String::from_utf8_lossy(&text)),
        }
    }
}

/// Where the certificates are for an engine that is to be believed only with them, as Docker's own client finds them.
fn tls_directory(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    path("DOCKER_TLS_VERIFY")?;
    let home = || path("HOME").map(|home| home.join(".docker"));
    let directory = path("DOCKER_CERT_PATH")
        .or_else(|| path("DOCKER_CONFIG"))
        .or_else(home);
    // Nowhere is no reason to do without.
    Some(directory.unwrap_or_else(|| PathBuf::from("/nonexistent")))
}

/// A name of an image, in which nothing has to be escaped.
fn checked(name: &str) -> Result<&str, EngineError> {
    match name.parse::<Reference>() {
        Ok(_) => Ok(name),
        Err(source) => Err(EngineError::Name {
            name: name.to_owned(),
            source,
        }),
    }
}

fn settings() -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_per_read(Some(ANSWER_TIMEOUT))
}

/// Connects to a Unix socket, whatever the address says.
#[derive(Debug)]
struct SocketConnector(PathBuf);

impl Connector for SocketConnector {
    type Out = SocketTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<SocketTransport>, ureq::Error> {
        Ok(Some(SocketTransport {
            stream: UnixStream::connect(&self.0)?,
            buffers: LazyBuffers::new(
                details.config.input_buffer_size(),
                details.config.output_buffer_size(),
            ),
        }))
    }
}

/// Nothing to be resolved: the connector knows where to go.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

#[derive(Debug)]
struct SocketTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream
            .set_write_timeout(timeout.for_write().not_zero().map(|time| *time))?;
        let output = &self.buffers.output()[..amount];
        self.stream
            .write_all(output)
            .map_err(|error| in_time(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream
            .set_read_timeout(timeout.for_read().not_zero().map(|time| *time))?;
        let input = self.buffers.input_append_buf();
        let count = self.stream.read(input).map_err(|error| in_time(error, timeout))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Not asked whether it is: each request gets a connection of its own.
        false
    }
}

/// The error of a socket whose time is over says only that it would have to wait.
fn in_time(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => ureq::Error::Io(error),
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
