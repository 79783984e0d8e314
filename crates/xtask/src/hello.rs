//! The example enclave `hello.eif`, made as a user makes one: `nitro-cli build-enclave` on an image.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, at};
use crate::kernels::Kernel;
use crate::process;
use crate::workspace::Workspace;

/// Debian's busybox-static.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// The kernel command line of AWS's x86-64 blobs (nitro-cli 1.5.0, `blobs/x86_64/cmdline`).
const KERNEL_ARGUMENTS: &str = "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux \
                                i8042.nopnp i8042.dumbkbd random.trust_cpu=on";

/// The files of a blobs directory, named as AWS names them.
pub(crate) const BLOBS: [&str; 4] = ["bzImage", "bzImage.config", "cmdline", "init"];

/// The directory of what `build-enclave` adds to an image: kernel, its configuration, command line, process 1.
pub(crate) fn blobs(workspace: &Workspace, init: &Path, kernel: &Kernel) -> Result<PathBuf, Error> {
    let blobs = emptied(workspace.output("blobs"))?;
    let [kernel_name, config_name, arguments_name, init_name] = BLOBS.map(|name| blobs.join(name));
    copy(&kernel.bzimage(), &kernel_name)?;
    copy(&kernel.config(), &config_name)?;
    write(&arguments_name, KERNEL_ARGUMENTS)?;
    // Every enclave carries, measures and unpacks it: without debugging information it is a third as long.
    let mut strip = Command::new("strip");
    process::logged(strip.arg("-o").arg(&init_name).arg(init), &workspace.log("strip"))?;
    Ok(blobs)
}

/// Builds `hello.eif` and returns its path.
pub(crate) fn built(workspace: &Workspace, nitro_cli: &Path, blobs: &Path) -> Result<PathBuf, Error> {
    let image = image(workspace)?;
    let eif = workspace.output("hello.eif");
    let mut build = Command::new(nitro_cli);
    build
        .arg("build-enclave")
        .arg("--docker-uri")
        .arg(&image)
        .arg("--output-file")
        .arg(&eif);
    build.env("NITRO_CLI_BLOBS", blobs);
    process::logged(&mut build, &workspace.log("hello"))?;
    Ok(eif)
}

/// What `images/hello/Dockerfile` describes, with Debian's busybox: a root file system beside the command and the
/// environment.
fn image(workspace: &Workspace) -> Result<PathBuf, Error> {
    let image = emptied(workspace.output("hello"))?;
    let bin = image.join("rootfs/bin");
    fs::create_dir_all(&bin).map_err(at("create", &bin))?;
    copy(Path::new(BUSYBOX), &bin.join("busybox"))?;
    for tool in ["sh", "printf", "sleep"] {
        let link = bin.join(tool);
        symlink("busybox", &link).map_err(at("create", &link))?;
    }
    let script = bin.join("hello.sh");
    copy(&workspace.file("images/hello/hello.sh"), &script)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
        .map_err(at("change the mode of", &script))?;
    write(&image.join("cmd"), "/bin/hello.sh\n")?;
    write(&image.join("env"), "PATH=/bin\n")?;
    Ok(image)
}

/// The directory, new and empty.
pub(crate) fn emptied(directory: PathBuf) -> Result<PathBuf, Error> {
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(at("remove", &directory))?;
    }
    fs::create_dir_all(&directory).map_err(at("create", &directory))?;
    Ok(directory)
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map_err(at("copy", from))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(at("write", path))
}
