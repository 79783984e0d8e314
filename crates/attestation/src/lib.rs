//! Attestation documents and the certificates behind them: issue, write, verify.
//!
//! # What a document is
//!
//! An enclave proves what it is by a document that names its measurements and is signed by the platform. It is an
//! untagged COSE_Sign1 (RFC 9052) with ES384, made of a fixed frame and a CBOR map:
//!
//! ```text
//! 84                      array of 4
//!   44 a1 01 38 22        protected header: {1: -35}, ES384
//!   a0                    unprotected header: empty
//!   59 LL LL <payload>    map of nine entries: module_id, digest, timestamp, pcrs, certificate, cabundle,
//!                         public_key, user_data, nonce
//!   58 60 <r ‖ s>         signature over ["Signature1", protected, h'', payload]
//! ```
//!
//! `certificate` is the DER of the enclave's own certificate, whose key signs the document. `cabundle` holds its issuers,
//! root first.
//!
//! # The chain
//!
//! Five levels of P-384 keys, each certificate signed with ecdsa-with-SHA384, X.509 version 3, 1024 bytes at most:
//!
//! ```text
//! root ──► regional ──► zonal ──► host ──► enclave
//! 30 y     20 d + 1 h   6 d       24 h     3 h          lifetime
//! CA       CA, 2        CA, 1     CA, 0    not a CA     basic constraints, path length
//! ```
//!
//! The levels, extensions and lifetimes are those of the genuine chain, so that verifiers written for it accept ours when
//! they are given our root. The names are our own.
//!
//! # How one is verified
//!
//! 1. [`UnverifiedDocument::parse`]: strict frame, nine keys in order, every length within its limit.
//! 2. [`UnverifiedDocument::verify`]: the first certificate of `cabundle` is byte for byte the root that the caller pins,
//!    each certificate is signed by the one before it, is valid at the given time, and may do what it does; the leaf's key
//!    signed the document.
//! 3. [`Policy::check`]: the measurements, nonce and user data are those that the caller expects, and the enclave does not
//!    run in debug mode.
//!
//! [`verify()`] does all three. A failure is a [`VerifyError`] that names the check and the certificate.
//!
//! # What is where
//!
//! [`chain`] issues certificates and takes in those of an operator's own authority; [`write()`] makes documents with a
//! [`Signer`]; [`mod@verify`] is the rest. There is no file, socket or clock in here: bytes, keys, randomness and times are
//! passed in. Nothing that is parsed makes this crate panic, and each input is bounded in size before it is looked at:
//! [`MAX_DOCUMENT`], [`MAX_CERTIFICATE`], [`MAX_CABUNDLE`].

#![forbid(unsafe_code)]

mod cbor;
mod certificate;
pub mod chain;
mod content;
mod cose;
mod document;
mod key;
mod path;
mod timestamp;
pub mod verify;

pub use certificate::{Certificate, CertificateError, MAX_CERTIFICATE};
pub use content::{AttestationContent, ContentFault, MAX_FIELD, PCR_COUNT, PCR_LEN};
pub use document::{MapForm, WriteError, write};
pub use key::{KeyError, PublicKey, SIGNATURE_LEN, SignError, Signer, SoftwareKey};
pub use path::{PathError, PathFault, Position};
pub use timestamp::{NoTimestamp, Timestamp};
pub use verify::{
    AttestationDocument, DocumentError, Policy, PolicyError, TrustAnchor, TrustAnchorError,
    UnverifiedDocument, VerifyError, verify,
};

/// Bytes of a document: a response of the security module, which carries it, has 0x3000.
pub const MAX_DOCUMENT: usize = 0x3000;

/// Certificates in a `cabundle`. With so many of [`MAX_CERTIFICATE`] bytes each, a document whose every field is as long as
/// it may be still fits in the security module's response.
pub const MAX_CABUNDLE: usize = 6;
