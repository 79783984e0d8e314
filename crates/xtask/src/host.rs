//! Whether this host's own KVM can run enclaves.

use std::fs::File;
use std::io;
use std::process::Command;

use crate::error::Error;
use crate::programs::Programs;

/// What `/dev/kvm` is good for.
#[derive(Debug)]
pub(crate) enum Kvm {
    /// It runs guests.
    Works,
    /// It is absent, or there but unable to run a guest, as in some clouds.
    Unusable {
        /// Why, in the VMM's words.
        reason: String,
    },
}

/// Lets the VMM find out: it creates a virtual machine and runs a few instructions in it.
pub(crate) fn probe(programs: &Programs) -> Result<Kvm, Error> {
    let mut probe = Command::new(&programs.enclave_vmm);
    let output = probe.arg("probe").output().map_err(|source| {
        let program = programs.enclave_vmm.display().to_string();
        Error::Spawn { program, source }
    })?;
    if output.status.success() {
        return Ok(Kvm::Works);
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Ok(Kvm::Unusable { reason })
}

/// Whether `/dev/kvm` is there and may be used. It may still be one that cannot boot Linux; see [`probe`].
pub(crate) fn kvm_opens() -> io::Result<()> {
    let mut options = File::options();
    options.read(true).write(true).open("/dev/kvm").map(drop)
}
