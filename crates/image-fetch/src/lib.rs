//! Container images that are not in files: from registries, and from a container engine on this machine.
//!
//! # Registries (OCI distribution specification 1.1)
//!
//! ```text
//! Reference ── docker.io/library/hello:v1@sha256:…
//!   │ Credentials     Docker's and Podman's files, helper programs
//!   │ certificates    the system's roots, and those of certs.d
//!   ▼
//! Repository ── GET /v2/NAME/manifests/…, /v2/NAME/blobs/…, of mirrors first
//!   │ 401 → Challenge → token, then once more
//!   ▼
//! BlobCache ── hashed while they come, put in place when they are whole, and hashed again when they are used
//! ```
//!
//! A [`Registry`] is what all repositories share; a [`Repository`] gives documents and blobs by digest. What is in a
//! manifest, and which of several platforms is meant, is not known here: the caller reads manifests and asks for what they
//! name.
//!
//! # Container engines
//!
//! An [`Engine`] is Docker or Podman, over its socket. It gives a whole image as one archive.
//!
//! # What a server cannot do
//!
//! No document is larger than [`DOCUMENT_LIMIT`] and no blob larger than its manifest says; all have the digest that was asked
//! for. A server that sends nothing is given up. Credentials go to the registry that they are for, and to where it sends for
//! tokens, over TLS only (except on this machine); they do not follow redirects to other hosts and are in no message.

#![forbid(unsafe_code)]

mod cache;
mod certificates;
mod challenge;
mod client;
mod credentials;
mod digest;
mod engine;
mod error;
mod reference;
mod repository;
#[cfg(test)]
#[expect(dead_code, reason = "other tests use more of it")]
mod test_server;

pub use challenge::Challenge;
pub use credentials::CredentialError;
pub use digest::{Digest, DigestMismatch, HashingReader};
pub use engine::{Engine, EngineError};
pub use error::FetchError;
pub use reference::{Reference, ReferenceError};
pub use repository::{DOCUMENT_LIMIT, Manifest, Mirror, MirrorError, Registry, Repository, Settings};
