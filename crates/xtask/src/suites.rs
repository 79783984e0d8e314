//! The end-to-end suites: the integration tests of the package `end-to-end-tests`, each run in a parent instance.
//!
//! A suite says in its source which parent it needs, with the options of `cargo xtask parent`; what follows `--` goes to
//! the test harness:
//!
//! ```text
//! // parent: --cpus 8 --threads 2 --nodes 2 --memory 5G --package socat -- --test-threads 1
//! ```
//!
//! One that takes long has the line `// only when named` as well, and does not run with the others.
//!
//! Without a line `// parent:` it gets the parent that `cargo xtask parent` makes without options. Beside what every parent has,
//! `/opt/enclaved` holds the package's binaries, which run inside enclaves, and the kernel of `hostile-guest` in `guest`, the
//! enclave kernel as an ELF file, `vmlinux`, the kernel's programs for testing vsock in `vsock-tools`, and AWS's `eif_build` in
//! `oracle`; that one is linked dynamically and needs the packages `libssl3` and `libgcc-s1`. Where systemd runs, `packages` holds
//! the Debian packages of two versions of enclaved. The suite `nsm` has a
//! directory of the host at `/share`, for documents that [`verifiers`](crate::verifiers) are asked about.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Parser;
use parent_instance::{Config, ParentInstance, Session};

use crate::cargo::{self, Executable};
use crate::error::{Error, at};
use crate::examples;
use crate::installation::below;
use crate::parent::{self, file};
use crate::process;
use crate::report::Outcome;
use crate::totals::Counter;
use crate::workspace::Workspace;

/// The package that the suites are in.
pub(crate) const PACKAGE: &str = "end-to-end-tests";

/// The package with the kernel that attacks the machine it runs on.
const HOSTILE_GUEST: &str = "hostile-guest";

/// Where a suite, the guests' applications, the kernel in its other form, AWS's `eif_build`, the kernel's programs for testing
/// vsock and enclaved's packages are in the parent.
const SUITES: &str = "/opt/enclaved/suites";
const GUESTS: &str = "/opt/enclaved/guest";
const VMLINUX: &str = "/opt/enclaved/vmlinux";
const ORACLE: &str = "/opt/enclaved/oracle";
const VSOCK_TOOLS: &str = "/opt/enclaved/vsock-tools";
const PACKAGES: &str = "/opt/enclaved/packages";

/// What is built of the package.
#[derive(Debug)]
pub(crate) struct Suites {
    /// Test executables, by name.
    pub(crate) suites: Vec<Suite>,
    /// Applications for enclaves, and a kernel that is none of ours.
    pub(crate) guests: Vec<PathBuf>,
}

/// One suite.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) name: String,
    executable: PathBuf,
    source: PathBuf,
}

/// What suites may use beside an installation.
#[derive(Debug)]
pub(crate) struct Extras<'a> {
    /// Applications for enclaves.
    pub(crate) guests: &'a [PathBuf],
    /// The enclave kernel in its other form.
    pub(crate) vmlinux: &'a Path,
    /// AWS's `eif_build`.
    pub(crate) oracle: &'a Path,
    /// The kernel's programs for testing vsock.
    pub(crate) vsock_tools: &'a [PathBuf],
    /// Debian packages of enclaved.
    pub(crate) packages: &'a [PathBuf],
}

/// A `// parent:` line.
#[derive(Debug, Parser)]
#[command(name = "parent", no_binary_name = true)]
struct Head {
    #[command(flatten)]
    arguments: parent::Arguments,
}

/// Builds suites and applications, statically and without link-time optimisation, which would take longer for each
/// suite than it saves.
pub(crate) fn built(workspace: &Workspace) -> Result<Suites, Error> {
    let mut build = cargo::cargo(workspace, "test");
    cargo::release_static(&mut build)
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .args(["--package", PACKAGE, "--tests", "--bins"]);
    let messages = process::captured(&mut build, &workspace.log("suites"))?;
    let executables = cargo::executables(&messages);
    let mut suites: Vec<Suite> = executables.iter().filter_map(Suite::from_executable).collect();
    suites.sort_by(|one, other| one.name.cmp(&other.name));
    let guests = executables
        .iter()
        .filter(|executable| executable.kind == "bin" && !executable.is_test);
    let guests: Result<_, _> = guests
        .chain(&hostile_guest(workspace)?)
        .map(|executable| stripped(workspace, &executable.path))
        .collect();
    Ok(Suites {
        suites,
        guests: guests?,
    })
}

/// Builds it for the address that it is loaded at.
fn hostile_guest(workspace: &Workspace) -> Result<Vec<Executable>, Error> {
    let mut build = cargo::cargo(workspace, "rustc");
    cargo::release_static(&mut build)
        .args(["--message-format", "json-render-diagnostics"])
        .args(["--package", HOSTILE_GUEST, "--bin", HOSTILE_GUEST])
        .args(["--features", "kernel"])
        .args(["--", "-C", "relocation-model=static"]);
    let messages = process::captured(&mut build, &workspace.log(HOSTILE_GUEST))?;
    Ok(cargo::executables(&messages))
}

/// The application without debugging information, in a file of the same name.
fn stripped(workspace: &Workspace, application: &Path) -> Result<PathBuf, Error> {
    let directory = workspace.output("guests");
    fs::create_dir_all(&directory).map_err(at("create", &directory))?;
    let name = application.file_name().unwrap_or_default();
    let stripped = directory.join(name);
    examples::strip(workspace, application, &stripped)?;
    Ok(stripped)
}

impl Suite {
    fn from_executable(executable: &Executable) -> Option<Self> {
        (executable.kind == "test" && executable.is_test).then(|| Self {
            name: executable.name.clone(),
            executable: executable.path.clone(),
            source: executable.source.clone(),
        })
    }

    /// The parent that the suite needs.
    pub(crate) fn parent(&self) -> Result<parent::Arguments, Error> {
        let text = fs::read_to_string(&self.source).map_err(at("read", &self.source))?;
        parse_head(&text).map_err(|reason| Error::SuiteHead {
            path: self.source.clone(),
            reason,
        })
    }

    /// Whether it runs only if it is asked for by its name.
    pub(crate) fn only_when_named(&self) -> Result<bool, Error> {
        let text = fs::read_to_string(&self.source).map_err(at("read", &self.source))?;
        Ok(text.lines().any(|line| line == "// only when named"))
    }

    /// Adds the suite, and what suites may use, to a parent.
    pub(crate) fn place(&self, config: &mut Config, extras: &Extras<'_>) {
        self.place_with_guests(config, extras.guests);
        config.files.push(file(extras.vmlinux, VMLINUX));
        config
            .files
            .push(file(extras.oracle, &below(ORACLE, extras.oracle)));
        let vsock_tools = extras.vsock_tools.iter();
        config
            .files
            .extend(vsock_tools.map(|host| file(host, &below(VSOCK_TOOLS, host))));
        let packages = extras.packages.iter();
        config
            .files
            .extend(packages.map(|host| file(host, &below(PACKAGES, host))));
    }

    /// Adds the suite and applications for enclaves alone.
    pub(crate) fn place_with_guests(&self, config: &mut Config, guests: &[PathBuf]) {
        config.files.push(file(&self.executable, &self.program()));
        let guests = guests.iter().map(|host| file(host, &below(GUESTS, host)));
        config.files.extend(guests);
    }

    /// Runs the suite in its parent, its output on this program's own streams. `harness` are arguments for it.
    pub(crate) fn run(&self, config: Config, harness: Vec<String>) -> Result<Outcome, Error> {
        let command = [vec![self.program()], harness].concat();
        let mut stdout = Counter::new(io::stdout());
        let parent = ParentInstance::prepare(config)?;
        let exit = parent.run_with(&Session::Command(command), &mut stdout, io::stderr())?;
        parent::finish(&exit);
        Ok(Outcome {
            totals: stdout.totals(),
            succeeded: exit.status == 0,
        })
    }

    /// Path of the suite in its parent.
    pub(crate) fn program(&self) -> String {
        format!("{SUITES}/{}", self.name)
    }
}

/// The options in the first `// parent:` line of a source file.
fn parse_head(source: &str) -> Result<parent::Arguments, String> {
    let line = source
        .lines()
        .find_map(|line| line.trim().strip_prefix("// parent:"))
        .unwrap_or_default();
    Head::try_parse_from(line.split_whitespace())
        .map(|head| head.arguments)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_the_options_of_the_parent_command() {
        let source = "//! Streams.\n\n// parent: --cpus 8 --memory 3G --package socat --package python3\nuse std::fs;\n";
        let arguments = parse_head(source).expect("valid");
        assert_eq!((arguments.machine.cpus, arguments.machine.memory), (8, 3 << 30));
        assert_eq!(arguments.machine.packages, ["socat", "python3"]);
        assert!(arguments.command.is_empty());
    }

    #[test]
    fn a_head_may_ask_for_systemd() {
        let arguments = parse_head("// parent: --systemd --cpus 4\n").expect("valid");
        assert!(arguments.machine.systemd);
    }

    #[test]
    fn what_follows_the_dashes_goes_to_the_harness() {
        let arguments = parse_head("// parent: -- --test-threads 1\n").expect("valid");
        assert_eq!(arguments.command, ["--test-threads", "1"]);
    }

    #[test]
    fn a_suite_without_a_head_gets_the_default_parent() {
        let arguments = parse_head("use std::fs;\n").expect("valid");
        assert_eq!(arguments.machine.cpus, 4);
    }

    #[test]
    fn a_wrong_head_is_an_error() {
        assert!(
            parse_head("// parent: --cpu 4\n")
                .expect_err("no such option")
                .contains("--cpu")
        );
        assert!(parse_head("// parent: --memory much\n").is_err());
    }
}
