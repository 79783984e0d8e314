//! The Nitro Security Module (NSM) of an enclave, without any input or output: request bytes in, response bytes out.
//!
//! # The module
//!
//! An enclave proves what it is through a device, `/dev/nsm`. The guest sends a [`Request`] (CBOR, up to 4096 bytes) and
//! gets one response ([`Response`], up to 12288 bytes). The module has 32 platform configuration registers (PCRs, SHA-384),
//! which can be extended (`new = H(old ‖ data)`) until they are locked, and never be set:
//!
//! | PCR | |
//! |---|---|
//! | 0 to 15 | the platform's, locked before the guest runs: image, role, instance, signer; see [`PcrBank::at_boot`] |
//! | 16 to 31 | the application's: zero at first, extended and locked as it likes |
//!
//! `Attestation` returns a document, signed by the platform, that states the locked registers together with what the guest
//! wants signed: `user_data`, a verifier's `nonce`, a `public_key`.
//!
//! # Who drives it
//!
//! The daemon has one [`Attestor`] for each enclave, made from what was measured before the guest ran. It gives it each
//! request that the enclave's VMM hands over, and a [`Platform`]: clock, random bytes, issuer of documents.
//!
//! ```text
//! bytes ─► Request ─► Attestor ─┬─► Reply                                      bytes to send
//!            │ Cost             └─► PendingChange ─► Snapshot, to be written down ─► Reply
//! ```
//!
//! Every request, however wrong, has an answer that a guest understands; why it was refused is in the [`Reply`] for the
//! operator. Limits on rates are the daemon's; [`Request::cost`] says what a request takes.
//!
//! # What is bounded
//!
//! The guest is hostile, and so is the VMM that carries its bytes. A request costs time and memory in
//! proportion to its length, a response at most [`MAX_RESPONSE`] bytes. Nothing that a request contains lets this crate panic, gives a
//! locked register another value or unlocks it.

#![forbid(unsafe_code)]

mod attestor;
mod boot;
mod error_code;
mod module_id;
mod pcr;
mod pcr_bank;
mod platform;
mod reader;
mod request;
mod response;
mod snapshot;
mod writer;

pub use attestor::{Answer, Attestor, MAX_FIELD, PendingChange, Refusal, Reply};
pub use boot::{IdentityError, MeasuredImage, ParentIdentity};
pub use error_code::ErrorCode;
pub use module_id::{MAX_MODULE_ID, ModuleId, ModuleIdError};
pub use pcr::{PCR_LEN, ParsePcrError, Pcr};
pub use pcr_bank::{PCR_COUNT, PLATFORM_PCRS, PcrBank, PcrError};
pub use platform::{AttestationContent, Platform, PlatformError};
pub use request::{Cost, MAX_REQUEST, Request, RequestError};
pub use response::{DIGEST, MAX_RESPONSE, RANDOM_LEN, Response};
pub use snapshot::{Snapshot, SnapshotError};
