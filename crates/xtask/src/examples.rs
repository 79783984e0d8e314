//! The example enclaves `hello.eif` and `attest.eif`, made as a user makes one: `nitro-cli build-enclave` on an image.
//!
//! Commands may run side by side, each of them reading the files until its machine is made. So the files are never
//! changed: they lie in a directory that is named after everything they are made of, and other such directories are
//! removed only when nobody holds them ([`Examples`]).

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, at};
use crate::kernels::Kernel;
use crate::programs::Programs;
use crate::workspace::Workspace;
use crate::{digest, lock, process};

/// Debian's busybox-static.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

/// The kernel command line of AWS's x86-64 blobs (nitro-cli 1.5.0, `blobs/x86_64/cmdline`).
const KERNEL_ARGUMENTS: &str = "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux \
                                i8042.nopnp i8042.dumbkbd random.trust_cpu=on";

/// The files of a blobs directory, named as AWS names them.
pub(crate) const BLOBS: [&str; 4] = ["bzImage", "bzImage.config", "cmdline", "init"];

/// What the names of the directories begin with.
const PREFIX: &str = "examples-";
/// What is being made or removed by whoever has the lock.
const UNFINISHED: &str = "unfinished-examples";

/// The EIFs and the blobs they were built with. They stay where and as they are as long as this lives.
#[derive(Debug)]
pub(crate) struct Examples {
    directory: PathBuf,
    /// The directory with a shared lock.
    _held: File,
}

impl Examples {
    /// Says hello on its console.
    pub(crate) fn hello(&self) -> PathBuf {
        self.directory.join("hello.eif")
    }

    /// Attests what it is, and takes a secret.
    pub(crate) fn attest(&self) -> PathBuf {
        self.directory.join("attest.eif")
    }

    /// The directory of what `build-enclave` adds to an image: kernel, its configuration, command line, process 1.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.directory.join("blobs")
    }
}

/// Builds them, unless that has been done from the same files.
pub(crate) fn built(workspace: &Workspace, programs: &Programs, kernel: &Kernel) -> Result<Examples, Error> {
    let script = workspace.file("images/hello/hello.sh");
    let read = |path: &Path| fs::read(path).map_err(at("read", path));
    let key = digest::of(&[
        // What is done below with the others.
        include_bytes!("examples.rs"),
        &read(&programs.nitro_cli)?,
        &read(&programs.init)?,
        &read(&programs.attest)?,
        &read(&kernel.bzimage())?,
        &read(&kernel.config())?,
        &read(Path::new(BUSYBOX))?,
        &read(&script)?,
    ]);
    let directory = workspace.output(&format!("{PREFIX}{key}"));

    let _turn = lock::exclusive(&workspace.output("examples.lock"))?;
    if !directory.exists() {
        let unfinished = workspace.output(UNFINISHED);
        remove(&unfinished)?;
        make_blobs(workspace, &unfinished.join("blobs"), &programs.init, kernel)?;
        make_hello(&unfinished.join("hello"), &script)?;
        make_attest(workspace, &unfinished.join("attest"), &programs.attest)?;
        for name in ["hello", "attest"] {
            build(workspace, &programs.nitro_cli, &unfinished, name)?;
        }
        fs::rename(&unfinished, &directory).map_err(at("create", &directory))?;
    }
    let held = File::open(&directory).map_err(at("open", &directory))?;
    held.lock_shared().map_err(at("lock", &directory))?;
    remove_others(workspace, &directory)?;
    Ok(Examples {
        directory,
        _held: held,
    })
}

fn make_blobs(workspace: &Workspace, blobs: &Path, init: &Path, kernel: &Kernel) -> Result<(), Error> {
    fs::create_dir_all(blobs).map_err(at("create", blobs))?;
    let [kernel_name, config_name, arguments_name, init_name] = BLOBS.map(|name| blobs.join(name));
    copy(&kernel.bzimage(), &kernel_name)?;
    copy(&kernel.config(), &config_name)?;
    write(&arguments_name, KERNEL_ARGUMENTS)?;
    strip(workspace, init, &init_name)
}

/// Every enclave carries, measures and unpacks its programs: without debugging information they are a third as long.
pub(crate) fn strip(workspace: &Workspace, program: &Path, stripped: &Path) -> Result<(), Error> {
    let mut strip = Command::new("strip");
    process::logged(
        strip.arg("-o").arg(stripped).arg(program),
        &workspace.log("strip"),
    )
}

/// What `images/hello/Dockerfile` describes, with Debian's busybox: a root file system beside the command and the
/// environment.
fn make_hello(image: &Path, script: &Path) -> Result<(), Error> {
    let bin = image.join("rootfs/bin");
    fs::create_dir_all(&bin).map_err(at("create", &bin))?;
    copy(Path::new(BUSYBOX), &bin.join("busybox"))?;
    for tool in ["sh", "printf", "sleep"] {
        let link = bin.join(tool);
        symlink("busybox", &link).map_err(at("create", &link))?;
    }
    let program = bin.join("hello.sh");
    copy(script, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .map_err(at("change the mode of", &program))?;
    write(&image.join("cmd"), "/bin/hello.sh\n")?;
    write(&image.join("env"), "PATH=/bin\n")
}

/// What `images/attest/Dockerfile` describes: a static program, and nothing else.
fn make_attest(workspace: &Workspace, image: &Path, program: &Path) -> Result<(), Error> {
    let bin = image.join("rootfs/bin");
    fs::create_dir_all(&bin).map_err(at("create", &bin))?;
    strip(workspace, program, &bin.join("attest"))?;
    write(&image.join("cmd"), "/bin/attest\n")?;
    write(&image.join("env"), "PATH=/bin\n")
}

/// The EIF of the image `name` and the blobs in `directory`.
fn build(workspace: &Workspace, nitro_cli: &Path, directory: &Path, name: &str) -> Result<(), Error> {
    let mut build = Command::new(nitro_cli);
    build
        .arg("build-enclave")
        .arg("--docker-uri")
        .arg(directory.join(name))
        .arg("--output-file")
        .arg(directory.join(format!("{name}.eif")));
    build.env("NITRO_CLI_BLOBS", directory.join("blobs"));
    process::logged(&mut build, &workspace.log(name))
}

/// Removes what earlier states of the checkout have left and nobody holds.
fn remove_others(workspace: &Workspace, directory: &Path) -> Result<(), Error> {
    let output = workspace.output("");
    for entry in fs::read_dir(&output).map_err(at("read", &output))?.flatten() {
        let path = entry.path();
        if path == directory || !path.is_dir() || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let other = File::open(&path).map_err(at("open", &path))?;
        if other.try_lock().is_ok() {
            // Under its own name, a directory is whole even if this program is killed now.
            let unfinished = workspace.output(UNFINISHED);
            remove(&unfinished)?;
            fs::rename(&path, &unfinished).map_err(at("remove", &path))?;
            remove(&unfinished)?;
        }
    }
    Ok(())
}

fn remove(directory: &Path) -> Result<(), Error> {
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(at("remove", directory))
    } else {
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map_err(at("copy", from))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(at("write", path))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Takes its time, as the real one does, and puts into the EIF what it was built from.
    const NITRO_CLI: &str = "#!/bin/sh\n\
        [ \"$1 $2 $4\" = 'build-enclave --docker-uri --output-file' ] || exit 1\n\
        sleep 0.1\n\
        cd \"$3/rootfs/bin\"\n\
        if [ -e hello.sh ]; then application=hello.sh; else application=../../cmd; [ -x attest ] || exit 1; fi\n\
        cat \"$NITRO_CLI_BLOBS/bzImage\" \"$application\" >\"$5\"\n";

    struct Checkout {
        directory: tempfile::TempDir,
        workspace: Workspace,
    }

    impl Checkout {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("directory");
            let workspace = Workspace::below(directory.path());
            let checkout = Self { directory, workspace };
            fs::create_dir_all(checkout.workspace.file("images/hello")).expect("create");
            checkout.edit("echo hello");
            for (name, text) in [("bzImage", "kernel,"), ("config", ""), ("nitro-cli", NITRO_CLI)] {
                fs::write(checkout.path(name), text).expect("write");
            }
            let executable = fs::Permissions::from_mode(0o755);
            fs::set_permissions(checkout.path("nitro-cli"), executable).expect("change the mode");
            checkout
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn edit(&self, script: &str) {
            fs::write(self.workspace.file("images/hello/hello.sh"), script).expect("write");
        }

        fn built(&self) -> Examples {
            let kernel = Kernel::in_directory(self.directory.path());
            // Any program can be stripped.
            let program = || PathBuf::from("/bin/true");
            let programs = Programs {
                enclaved: program(),
                enclave_vmm: program(),
                allocator: program(),
                nitro_cli: self.path("nitro-cli"),
                vsock_proxy: program(),
                init: program(),
                attest: program(),
                attest_client: program(),
            };
            built(&self.workspace, &programs, &kernel).expect("build")
        }
    }

    fn is_whole(examples: &Examples, hello: &str) -> bool {
        let holds = |eif: PathBuf, text: &str| fs::read_to_string(eif).is_ok_and(|contents| contents == text);
        BLOBS.iter().all(|blob| examples.blobs().join(blob).is_file())
            && holds(examples.hello(), hello)
            && holds(examples.attest(), "kernel,/bin/attest\n")
    }

    #[test]
    fn commands_side_by_side_build_once_and_find_everything_in_place() {
        let checkout = Checkout::new();
        let commands = || {
            for _ in 0..5 {
                let examples = checkout.built();
                assert!(is_whole(&examples, "kernel,echo hello"));
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(commands);
            }
        });
        let log = fs::metadata(checkout.workspace.log("hello")).expect("a log");
        let _ = checkout.built();
        let after = fs::metadata(checkout.workspace.log("hello")).expect("a log");
        assert_eq!(
            log.modified().ok(),
            after.modified().ok(),
            "nothing is built again"
        );
    }

    #[test]
    fn what_a_command_still_uses_outlives_a_change_and_nothing_else_does() {
        let checkout = Checkout::new();
        let first = checkout.built();
        checkout.edit("echo changed");

        let second = checkout.built();

        assert!(is_whole(&first, "kernel,echo hello"));
        assert!(is_whole(&second, "kernel,echo changed"));
        let unused = first.directory.clone();
        drop(first);
        let again = checkout.built();
        assert!(!unused.exists());
        assert!(is_whole(&again, "kernel,echo changed"));
    }
}
