//! The parent instance that a suite runs in, and where things are in it.

use std::path::{Path, PathBuf};

/// Written into every parent instance by the crate `parent-instance`; no other machine has it.
const MARK: &str = "/parent/settings";

/// The applications of `src/bin`, static programs, placed by `cargo xtask test`.
const GUEST_APPLICATIONS: &str = "/opt/enclaved/guest";

/// AWS's `eif_build`, placed by `cargo xtask test`. It is dynamically linked: a suite that runs it asks for the Debian
/// packages `libssl3` and `libgcc-s1`.
const ORACLE: &str = "/opt/enclaved/oracle/eif_build";

/// The ELF form of the enclave kernel, placed by `cargo xtask test`.
const VMLINUX: &str = "/opt/enclaved/vmlinux";

/// The Linux kernel's programs for testing vsock, placed by `cargo xtask test`.
const VSOCK_TOOLS: &str = "/opt/enclaved/vsock-tools";

/// Debian packages of enclaved, placed by `cargo xtask test` where systemd runs.
const PACKAGES: &str = "/opt/enclaved/packages";

/// Kernel, command line and init, where nitro-cli looks for them by default.
const BLOBS: &str = "/usr/share/nitro_enclaves/blobs";

/// A directory of the machine around the parent, for suites that leave something for it.
const SHARE: &str = "/share";

/// Fails unless this machine is a parent instance.
///
/// # Panics
/// On any other machine.
pub fn require() {
    assert!(
        Path::new(MARK).exists(),
        "end-to-end suites run inside a parent instance only: use `cargo xtask test`"
    );
}

/// The hello example, built by `cargo xtask`.
pub fn hello_eif() -> PathBuf {
    placed("/root/hello.eif")
}

/// The example that proves what it is and is given a secret by `attest-client`, built by `cargo xtask`.
pub fn attest_eif() -> PathBuf {
    placed("/root/attest.eif")
}

/// The static program of `src/bin` of this name.
pub fn guest_application(name: &str) -> PathBuf {
    placed(&format!("{GUEST_APPLICATIONS}/{name}"))
}

/// The enclave kernel as an ELF file. `blob("bzImage")` is its other form.
pub fn vmlinux() -> PathBuf {
    placed(VMLINUX)
}

/// A file of the blobs directory: `bzImage`, `bzImage.config`, `cmdline`, `init`.
pub fn blob(name: &str) -> PathBuf {
    placed(&format!("{BLOBS}/{name}"))
}

/// AWS's program that builds EIFs.
pub fn oracle() -> PathBuf {
    placed(ORACLE)
}

/// A program of the Linux kernel for testing vsock: `vsock_test`, `vsock_perf`, or one of them with `-unix`, which finds the
/// enclave at the Unix socket that `VSOCK_SOCKET` names.
pub fn vsock_tool(name: &str) -> PathBuf {
    placed(&format!("{VSOCK_TOOLS}/{name}"))
}

/// The directory for what `cargo xtask test` looks at after the suite; it says which suites have one.
///
/// # Panics
/// In a parent without one.
pub fn share() -> PathBuf {
    assert!(
        Path::new(SHARE).is_dir(),
        "`cargo xtask test` has given this suite no shared directory"
    );
    SHARE.into()
}

/// enclaved's Debian package, and the same with the next higher version.
///
/// # Panics
/// In a parent without systemd.
pub fn packages() -> [PathBuf; 2] {
    let entries = std::fs::read_dir(PACKAGES).expect("only a parent with systemd has packages");
    let mut packages: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    // Their names differ in the last digit of the version.
    packages.sort();
    packages.try_into().expect("two packages")
}

fn placed(path: &str) -> PathBuf {
    assert!(
        Path::new(path).is_file(),
        "`cargo xtask test` has not placed {path} in this parent"
    );
    path.into()
}
