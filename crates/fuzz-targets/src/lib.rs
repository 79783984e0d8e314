//! What must hold for any bytes that come from outside: one function for each parser, which panics where it does not.
//!
//! | target | input | from |
//! |---|---|---|
//! | `daemon-frame` | a message to or from the daemon | a client, the daemon, a VMM |
//! | `nsm-request` | a request to the security module | the guest, by way of its VMM |
//! | `attestation-document` | an attestation document | a client of the verifier |
//! | `attestation-certificate` | a certificate, a chain, a key, a root | an operator |
//! | `eif` | an enclave image | whoever runs one |
//! | `image-layer` | the archive of a container image's layer | whoever made the image |
//! | `image-documents` | configuration, manifest or index of a container image | whoever made the image |
//! | `image-reference` | the name of an image | whoever builds |
//! | `registry-challenge` | how a registry wants to be convinced | the registry |
//! | `eif-signature` | the signature section of an image, and what it is made of | whoever signed it |
//! | `vsock-device` | queues, packets and register accesses of a vsock driver | the guest |
//! | `vsock-proxy-files` | the allowlist and the targets of vsock-proxy | an operator |
//!
//! `cargo xtask fuzz` runs them under libFuzzer, which keeps inputs that reach new code and mutates them further; the
//! package `fuzz`, outside of the workspace, is what links it. The tests of this crate give each target the inputs in
//!
//! - `corpus/TARGET`: seeds, and inputs that reached code that no other did,
//! - `failures/TARGET`: inputs that a target has once failed on. libFuzzer writes them there, and there they stay.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a target panics where something does not hold"
)]

mod attestation_certificate;
mod attestation_document;
mod daemon_frame;
mod eif_image;
mod eif_signature_section;
mod image_source;
mod nsm_request;
mod registry;
mod vsock_device;
mod vsock_proxy_files;

/// Panics if something does not hold for these bytes.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 12] = [
    ("daemon-frame", daemon_frame::check),
    ("nsm-request", nsm_request::check),
    ("attestation-document", attestation_document::check),
    ("attestation-certificate", attestation_certificate::check),
    ("eif", eif_image::check),
    ("eif-signature", eif_signature_section::check),
    ("image-layer", image_source::check_layer),
    ("image-documents", image_source::check_documents),
    ("image-reference", registry::check_reference),
    ("registry-challenge", registry::check_challenge),
    ("vsock-device", vsock_device::check),
    ("vsock-proxy-files", vsock_proxy_files::check),
];
