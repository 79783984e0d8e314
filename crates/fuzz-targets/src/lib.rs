//! What must hold for any bytes that come from outside: one function for each parser, which panics where it does not.
//!
//! | target | input | from |
//! |---|---|---|
//! | `daemon-frame` | a message to or from the daemon | a client, the daemon, a VMM |
//! | `daemon-files` | what a daemon reads that was written by the one before it | the daemon |
//! | `allocator-configuration` | `allocator.yaml` | an operator |
//! | `nsm-request` | a request to the security module | the guest, by way of its VMM |
//! | `nsm-device` | queues and register accesses of a driver of the security module, and packets of the daemon's | the guest, the daemon |
//! | `attestation-document` | an attestation document | a client of the verifier |
//! | `attestation-certificate` | a certificate, a chain, a key, a root | an operator |
//! | `eif` | an enclave image | whoever runs one |
//! | `boot-image` | an enclave image, or kernel, command line and ramdisks of one, loaded into guest memory | whoever runs one |
//! | `image-layer` | the archive of a container image's layer | whoever made the image |
//! | `image-documents` | configuration, manifest or index of a container image | whoever made the image |
//! | `image-reference` | the name of an image | whoever builds |
//! | `registry-challenge` | how a registry wants to be convinced | the registry |
//! | `eif-signature` | the signature section of an image, and what it is made of | whoever signed it |
//! | `port-devices` | accesses to ports: serial port, keyboard controller, nobody's | the guest |
//! | `vsock-device` | queues, packets and register accesses of a vsock driver, with Unix sockets | the guest, programs on the parent |
//! | `vsock-kernel` | the same with the parent's kernel, and what that answers | the guest, the kernel |
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

mod allocator_configuration;
mod attestation_certificate;
mod attestation_document;
mod boot_image;
mod daemon_files;
mod daemon_frame;
mod eif_image;
mod eif_signature_section;
mod fake_vhost;
mod image_source;
mod nsm_device;
mod nsm_request;
mod port_devices;
mod registry;
mod virtio_driver;
mod vsock_device;
mod vsock_kernel;
mod vsock_packets;
mod vsock_proxy_files;

/// A target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// How the command line and the directories of inputs call it.
    pub name: &'static str,
    /// Panics if something does not hold for these bytes.
    pub check: fn(&[u8]),
    /// The files and directories of the checkout with the code that it is about. `cargo xtask fuzz` says how much of that its inputs
    /// reach.
    pub modules: &'static [&'static str],
}

const fn target(name: &'static str, check: fn(&[u8]), modules: &'static [&'static str]) -> Target {
    Target { name, check, modules }
}

/// All targets.
pub const TARGETS: [Target; 18] = [
    target("daemon-frame", daemon_frame::check, &["crates/api/src"]),
    target(
        "daemon-files",
        daemon_files::check,
        &[
            "crates/enclaved/src/note.rs",
            "crates/enclaved/src/allocator/pool.rs",
            "crates/enclaved/src/ended.rs",
            "crates/nsm/src/snapshot.rs",
        ],
    ),
    target(
        "allocator-configuration",
        allocator_configuration::check,
        &[
            "crates/enclaved/src/allocator/configuration.rs",
            "crates/enclaved/src/allocator/yaml.rs",
        ],
    ),
    target("nsm-request", nsm_request::check, &["crates/nsm/src"]),
    target(
        "nsm-device",
        nsm_device::check,
        &["vmm/src/nsm", "crates/virtio/src"],
    ),
    target(
        "attestation-document",
        attestation_document::check,
        &[
            "crates/attestation/src/verify",
            "crates/attestation/src/verify.rs",
            "crates/attestation/src/cbor.rs",
            "crates/attestation/src/cose.rs",
            "crates/attestation/src/document.rs",
        ],
    ),
    target(
        "attestation-certificate",
        attestation_certificate::check,
        &[
            "crates/attestation/src/certificate.rs",
            "crates/attestation/src/chain",
            "crates/attestation/src/chain.rs",
            "crates/attestation/src/key.rs",
            "crates/attestation/src/path.rs",
        ],
    ),
    target("eif", eif_image::check, &["crates/eif/src"]),
    target(
        "eif-signature",
        eif_signature_section::check,
        &["crates/eif-signature/src"],
    ),
    target(
        "boot-image",
        boot_image::check,
        &[
            "vmm/src/load.rs",
            "vmm/src/load",
            "vmm/src/arch/x86_64/kernel.rs",
            "vmm/src/arch/x86_64/zero_page.rs",
        ],
    ),
    target(
        "image-layer",
        image_source::check_layer,
        &[
            "crates/image/src/layer",
            "crates/image/src/tar",
            "crates/image/src/tree",
        ],
    ),
    target(
        "image-documents",
        image_source::check_documents,
        &["crates/image/src/source", "crates/image/src/config.rs"],
    ),
    target(
        "image-reference",
        registry::check_reference,
        &["crates/image-fetch/src/reference.rs"],
    ),
    target(
        "registry-challenge",
        registry::check_challenge,
        &["crates/image-fetch/src/challenge.rs"],
    ),
    target(
        "port-devices",
        port_devices::check,
        &["vmm/src/devices", "vmm/src/bus.rs"],
    ),
    target(
        "vsock-device",
        vsock_device::check,
        &[
            "vmm/src/vsock/unix",
            "crates/vsock-device/src",
            "crates/virtio/src",
        ],
    ),
    target(
        "vsock-kernel",
        vsock_kernel::check,
        &["vmm/src/vsock/kernel", "crates/virtio/src"],
    ),
    target(
        "vsock-proxy-files",
        vsock_proxy_files::check,
        &["crates/vsock-proxy/src/configuration.rs"],
    ),
];
