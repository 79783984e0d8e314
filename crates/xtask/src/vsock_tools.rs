//! The Linux kernel's own programs for testing vsock, `vsock_test` and `vsock_perf`, for the end-to-end suite `vsock_tools`.
//!
//! They are built from Debian's kernel source as they are, without shared libraries so that they run in an enclave, and a second
//! time for a parent whose end of vsock is a Unix socket: then `oracles/vsock-tools/unix-backend.c` is linked in.
//!
//! ```text
//! cache/vsock-tools-<digest of what they are built from>
//!   vsock_test        vsock_perf         AF_VSOCK
//!   vsock_test-unix   vsock_perf-unix    Unix sockets in its place
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, at};
use crate::workspace::Workspace;
use crate::{apt, digest, process};

/// What building them is called.
pub(crate) const STEP: &str = "the kernel's vsock_test and vsock_perf (once, half a minute)";

/// Debian's package of the kernel source, and the file in it.
const SOURCE_PACKAGE: &str = "linux-source-6.12";
const SOURCE: &str = "/usr/src/linux-source-6.12.tar.xz";

/// What is unpacked: the programs, and the headers that their Makefile names.
const UNPACKED: [&str; 2] = ["*/tools/testing/vsock/*", "*/tools/include/*"];

/// The Makefile's targets that are built; the others need libraries or `AF_VSOCK` on both ends.
const PROGRAMS: [&str; 2] = ["vsock_test", "vsock_perf"];

/// In the names of those with Unix sockets.
const UNIX_SUFFIX: &str = "-unix";

/// What puts Unix sockets in the place of `AF_VSOCK`, and the calls that it takes.
const UNIX_BACKEND: &str = "oracles/vsock-tools/unix-backend.c";
const WRAPPED: [&str; 6] = ["socket", "bind", "connect", "accept", "setsockopt", "close"];

/// The programs, built unless that has been done before.
pub(crate) fn built(workspace: &Workspace) -> Result<Vec<PathBuf>, Error> {
    let backend = workspace.file(UNIX_BACKEND);
    let key = digest::of(&[
        // What is done below with the others.
        include_bytes!("vsock_tools.rs"),
        &fs::read(&backend).map_err(at("read", &backend))?,
        apt::version(SOURCE_PACKAGE)?.as_bytes(),
    ]);
    let directory = workspace.cache().join(format!("vsock-tools-{key}"));
    if !directory.exists() {
        // Whole or not there, also if two checkouts do this at the same time.
        let unfinished = directory.with_extension(std::process::id().to_string());
        build(workspace, &backend, &unfinished)?;
        if let Err(error) = fs::rename(&unfinished, &directory)
            && !directory.exists()
        {
            return Err(at("create", &directory)(error));
        }
    }
    let all =
        ["", UNIX_SUFFIX].map(|suffix| PROGRAMS.map(|program| directory.join(format!("{program}{suffix}"))));
    Ok(all.concat())
}

fn build(workspace: &Workspace, backend: &Path, directory: &Path) -> Result<(), Error> {
    let tree = directory.join("tree");
    fs::create_dir_all(&tree).map_err(at("create", &tree))?;
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--xz", "--file", SOURCE, "--directory"]);
    unpack.arg(&tree);
    unpack
        .args(["--strip-components", "1", "--wildcards"])
        .args(UNPACKED);
    process::logged(&mut unpack, &workspace.log("vsock-tools-source"))?;

    let sources = tree.join("tools/testing/vsock");
    link(workspace, &sources, directory, "", "-static -s", "")?;
    let object = sources.join("unix-backend.o");
    let mut compile = Command::new("cc");
    compile
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-c", "-o"])
        .arg(&object)
        .arg(backend);
    process::logged(&mut compile, &workspace.log("vsock-tools-unix-backend"))?;
    let wrapped = WRAPPED.map(|call| format!("-Wl,--wrap={call}")).join(" ");
    let flags = format!("-static -s {wrapped}");
    link(
        workspace,
        &sources,
        directory,
        UNIX_SUFFIX,
        &flags,
        "unix-backend.o",
    )?;
    fs::remove_dir_all(&tree).map_err(at("remove", &tree))
}

/// Links the programs with these flags and one object more, compiles what has not been compiled, and moves them to `directory`
/// with a suffix.
fn link(
    workspace: &Workspace,
    sources: &Path,
    directory: &Path,
    suffix: &str,
    flags: &str,
    object: &str,
) -> Result<(), Error> {
    let mut make = Command::new("make");
    make.arg("--directory").arg(sources).args(PROGRAMS);
    make.arg(format!("LDFLAGS={flags}"))
        .arg(format!("LDLIBS={object}"));
    process::logged(&mut make, &workspace.log(&format!("vsock-tools{suffix}")))?;
    for program in PROGRAMS {
        let built = sources.join(program);
        let kept = directory.join(format!("{program}{suffix}"));
        fs::rename(&built, &kept).map_err(at("move", &built))?;
    }
    Ok(())
}
