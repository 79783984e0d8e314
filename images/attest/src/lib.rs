//! Example: a secret that only one enclave image can read.
//!
//! A secret must not be built into an image, which anybody may take apart, nor lie on the parent, where other programs and
//! users could find it. So the enclave starts without it, makes a key pair, proves what it is, and is then given the secret,
//! encrypted to its key. Whoever carries the bytes cannot read them.
//!
//! # The conversation
//!
//! One vsock connection to the enclave's port [`PORT`]. A message is its length, two bytes, big-endian, and so many bytes:
//!
//! ```text
//! who has the secret                                                    enclave
//!   32 random bytes: the nonce                                    ──►   asks /dev/nsm for a document with this nonce and
//!                                                                       its public key
//!   verifies it: pinned root, PCR 0, this nonce, age, no debug    ◄──   attestation document
//!   encapsulated key (32) ‖ encrypted secret (1 to 4096) ‖ tag (16) ──► decrypts it
//!   knows that it was decrypted                                   ◄──   receipt (32)
//! ```
//!
//! Either side ends the connection when it does not like what it got; the enclave says why on its console alone.
//!
//! # Why this is enough
//!
//! - The document is signed by the platform, so the public key in it was named by an enclave of the image that PCR 0
//!   measures. The private key never leaves that enclave's memory and is gone when it ends.
//! - The nonce is new, so the document is too.
//! - The secret is encrypted by HPKE (RFC 9180, base mode, X25519, HKDF-SHA256, ChaCha20Poly1305) to that key, with the nonce
//!   as associated data: recorded, it cannot be played into another conversation.
//! - The receipt is HMAC-SHA256 of the secret under a key that HPKE exports. Whoever can make it has decrypted the secret, and
//!   whoever sees it learns nothing, not even of a secret that could be guessed.
//!
//! # What it rests on
//!
//! On the word of the platform. The platform of AWS is a hypervisor above the parent; that of enclaved is the parent's root,
//! who can read an enclave's memory and use the keys of its daemon. The root that is pinned says whose word is taken.
//!
//! # What is where
//!
//! [`frame`] has the messages and their limits, [`sealing`] the encryption, [`enclave`] and [`parent`] each one side of the
//! conversation over any stream, [`way_in`] the parent's way into an enclave. What the other side sends is bounded
//! before it is read, and parsed without a panic.

#![forbid(unsafe_code)]

pub mod enclave;
pub mod frame;
pub mod parent;
pub mod sealing;
mod secret;
pub mod way_in;

pub use secret::{MAX_SECRET, Secret, SecretLength};

/// The enclave listens on this vsock port.
pub const PORT: u32 = 5000;

/// Bytes of a [`Nonce`].
pub const NONCE_LEN: usize = 32;

/// Random bytes that name one conversation.
pub type Nonce = [u8; NONCE_LEN];
