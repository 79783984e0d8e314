//! Our own programs, as they run on a parent: release builds without shared libraries.

use std::path::{Path, PathBuf};

use crate::cargo::{self, Executable};
use crate::error::Error;
use crate::process;
use crate::workspace::Workspace;

/// The packages that make an installation, and that of an example.
pub(crate) const PACKAGES: [&str; 6] = [
    "enclaved",
    "enclave-vmm",
    "guest-init",
    "nitro-cli",
    "vsock-proxy",
    "attest",
];

/// Paths of the built programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) enclaved: PathBuf,
    pub(crate) enclave_vmm: PathBuf,
    pub(crate) allocator: PathBuf,
    pub(crate) nitro_cli: PathBuf,
    pub(crate) vsock_proxy: PathBuf,
    /// Process 1 of an enclave.
    pub(crate) init: PathBuf,
    /// The application of the example enclave `attest.eif`.
    pub(crate) attest: PathBuf,
    /// What talks to it on the parent.
    pub(crate) attest_client: PathBuf,
}

impl Programs {
    /// What is installed on a parent. Examples are not.
    pub(crate) fn of_the_parent(&self) -> [&Path; 5] {
        [
            &self.enclaved,
            &self.enclave_vmm,
            &self.allocator,
            &self.nitro_cli,
            &self.vsock_proxy,
        ]
    }
}

/// Builds them.
pub(crate) fn built(workspace: &Workspace) -> Result<Programs, Error> {
    let mut build = cargo::cargo(workspace, "build");
    cargo::release_static(&mut build).args(["--message-format", "json-render-diagnostics"]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    let messages = process::captured(&mut build, &workspace.log("programs"))?;
    let executables = cargo::executables(&messages);
    Ok(Programs {
        enclaved: find(&executables, "enclaved")?,
        enclave_vmm: find(&executables, "enclave-vmm")?,
        allocator: find(&executables, "nitro-enclaves-allocator")?,
        nitro_cli: find(&executables, "nitro-cli")?,
        vsock_proxy: find(&executables, "vsock-proxy")?,
        init: find(&executables, "init")?,
        attest: find(&executables, "attest")?,
        attest_client: find(&executables, "attest-client")?,
    })
}

fn find(executables: &[Executable], name: &str) -> Result<PathBuf, Error> {
    let executable = executables
        .iter()
        .find(|executable| executable.kind == "bin" && executable.name == name);
    executable
        .map(|executable| executable.path.clone())
        .ok_or_else(|| Error::NotBuilt(name.into()))
}
