//! Why an image could not be had.

use std::io;
use std::path::PathBuf;

use crate::credentials::CredentialError;
use crate::digest::DigestMismatch;

/// Longest text of a server that is shown.
const TEXT_LIMIT: usize = 300;

/// Why something could not be had from a registry. What to do about it is said where that is known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No answer.
    #[error("cannot reach the registry `{host}`: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What failed.
        reason: String,
        /// Whether it may go better in a moment.
        is_transient: bool,
    },
    /// TLS failed because of the server's certificate.
    #[error(
        "the registry `{host}` is not trusted: {reason}. If it has a certificate of a private authority, put that into \
         /etc/docker/certs.d/{host}/ca.crt or name it with --registry-ca"
    )]
    Untrusted {
        /// Host and port.
        host: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// The registry wants to know who asks.
    #[error(
        "the registry `{host}` wants credentials for `{repository}` and there are none. Use `docker login {host}`, or check that the name is right: for many registries, what does not exist is not public"
    )]
    NoCredentials {
        /// Host and port.
        host: String,
        /// The repository.
        repository: String,
    },
    /// It knows who asks and refuses.
    #[error(
        "the registry `{host}` refuses the credentials for `{repository}`{}. Use `docker login {host}` anew",
        detail(message)
    )]
    Refused {
        /// Host and port.
        host: String,
        /// The repository.
        repository: String,
        /// What the server says.
        message: String,
    },
    /// There is nothing by that name.
    #[error("the registry `{host}` has no {what}{}", detail(message))]
    NotFound {
        /// Host and port.
        host: String,
        /// The manifest or blob.
        what: String,
        /// What the server says.
        message: String,
    },
    /// Any other answer that is no success.
    #[error(
        "the registry `{host}` answers with HTTP status {status} when asked for {what}{}",
        detail(message)
    )]
    Status {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// An answer that is not what the protocol has.
    #[error("the registry `{host}` gives no usable answer when asked for {what}: {reason}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes with another digest than they must have.
    #[error("the registry `{host}` gives something else for {what}")]
    Digest {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// Both digests.
        source: DigestMismatch,
    },
    /// More or fewer bytes than there must be.
    #[error("the registry `{host}` gives {} {limit} bytes for {what}", if *is_larger { "more than" } else { "fewer than" })]
    Size {
        /// Host and port.
        host: String,
        /// What was asked for.
        what: String,
        /// The right number, or the most.
        limit: u64,
        /// Whether there were more.
        is_larger: bool,
    },
    /// Neither the registry nor a mirror.
    #[error("{error}. Before that, of the mirrors: {}", mirrors.join("; "))]
    Everywhere {
        /// The registry's error.
        error: Box<FetchError>,
        /// Those of the mirrors.
        mirrors: Vec<String>,
    },
    /// Credentials are there but of no use.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// A certificate or its key is not usable.
    #[error("cannot use the certificate or key in `{}`: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The cache cannot be read or written.
    #[error("cannot use the layer cache at `{}`", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

impl FetchError {
    /// Whether another try may help: nothing is wrong with what was asked for.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { is_transient, .. } => *is_transient,
            Self::Size { is_larger, .. } => !is_larger,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500..=599),
            _ => false,
        }
    }
}

/// `: message`, if there is one.
fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(" ({message})")
    }
}

/// The start of a text that a stranger wrote, on one line.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(TEXT_LIMIT)
        .collect::<String>()
        .trim()
        .to_owned()
}
