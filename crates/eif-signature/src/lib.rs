//! Signing enclave images, and checking who signed one.
//!
//! # What a signature says
//!
//! A signed EIF has a section with a certificate and a signature over PCR0, made with the certificate's key
//! ([`eif::SignatureSection`], [`eif::CoseSign1`]). The certificate becomes PCR8. So a policy for PCR8 trusts a signer for
//! whatever images they sign, where a policy for PCR0 trusts one image.
//!
//! Whoever has the key can sign, and anybody can make a certificate: nothing here asks who issued it. What makes PCR8
//! mean something is that no image gets the PCR8 of a certificate whose key it was not signed with. That is what these
//! checks are for:
//!
//! | check | by |
//! |---|---|
//! | the key belongs to the certificate | [`Signer::new`], before an image is signed |
//! | the certificate is valid at a given time | [`Signer::new`]; [`Certificate::check_dates`], before an image runs |
//! | the signature is the certificate's, and over the PCR0 that was measured | [`Certificate::check_signature`] |
//!
//! # Algorithms
//!
//! ECDSA on P-256, P-384 and P-521, each with the hash of its size; no other curves, and no RSA. The key decides. Signatures are
//! deterministic (RFC 6979): equal images, keys and certificates give equal bytes, and no source of randomness is needed.
//!
//! # Why a crate of its own
//!
//! The VMM reads EIFs with the crate `eif`. It measures and passes signatures on, and links nothing that parses certificates
//! or computes with keys: the daemon does that, and the command line.

#![forbid(unsafe_code)]

mod certificate;
mod key;
mod name;
mod offline;
mod signer;
mod time;

pub use certificate::{Certificate, CertificateError, SignatureCheckError};
pub use key::KeyError;
pub use offline::OfflineSigner;
pub use signer::{Signer, SignerError};
pub use time::CertificateTime;
