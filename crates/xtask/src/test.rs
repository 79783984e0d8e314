//! `cargo xtask test`: all that continuous integration checks, and one line of totals at the end.
//!
//! A stage that fails does not stop the next ones, so that all failures of a run are seen. A stage that fails without
//! counting a failed test, because something does not compile or a machine does not start, counts as one.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::cargo::{self, Executable, cargo};
use crate::error::Error;
use crate::installation::{self, Installation};
use crate::kernels::{self, Kernel, Kind};
use crate::report::{Outcome, Report};
use crate::steps::Steps;
use crate::suites::{self, Extras, Suite, Suites};
use crate::verifiers::{self, Verifiers};
use crate::workspace::Workspace;
use crate::{apt, dependencies, host, lint, oracle, package, process, vsock_tools};

/// Steps of [`prepare`], and of the end-to-end tests.
const END_TO_END_STEPS: usize = installation::STEPS + 6;

/// Steps before and between: formatting, lints, documentation, dependencies, unit tests, tests with `/dev/kvm`, tests with
/// tools.
const SOURCE_STEPS: usize = 7;

/// The package with tests that are ignored because they need `/dev/kvm`. One that cannot boot Linux will do.
const PACKAGE_WITH_KVM: &str = "vmm";

/// Packages with tests that are ignored where their tools are missing: `eif_build`, OpenSSL, QEMU and the parent kernel.
const PACKAGES_WITH_TOOLS: [&str; 3] = ["crates/eif", "crates/eif-signature", "crates/parent-instance"];

/// Names the parent kernel to the tests of `parent-instance`.
const PARENT_KERNEL: &str = "PARENT_KERNEL";

/// `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run only these end-to-end suites
    #[arg(value_name = "SUITE")]
    suites: Vec<String>,
    /// More arguments for the test harness of each suite, as for `cargo test`
    #[arg(last = true, value_name = "ARGUMENT", requires = "suites")]
    harness: Vec<String>,
}

/// What tests outside of unit tests need.
struct Tools {
    installation: Installation,
    parent_kernel: Kernel,
    oracle: PathBuf,
    verifiers: Verifiers,
    vsock: Vec<PathBuf>,
}

/// Runs all stages, or the suites that were named.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> ExitCode {
    let mut report = Report::default();
    let everything = arguments.suites.is_empty();
    let mut steps = Steps::new(1 + END_TO_END_STEPS + if everything { SOURCE_STEPS } else { 0 });
    // First of all, because unit tests, too, compare with programs that a bare machine lacks.
    let packages = steps.quiet(apt::STEP, || apt::install(workspace));
    report.needed(apt::STEP, packages);
    if everything {
        source_stages(workspace, &mut steps, &mut report);
    }
    if let Some(tools) = report.needed("installation", prepare(workspace, &mut steps)) {
        if everything {
            steps.announce("tests that need eif_build, independent verifiers or a parent instance");
            let outcome = tests_with_tools(workspace, &tools);
            report.skipped_tests("tests with eif_build and machines", outcome);
            let outcome = attestation_tests(unit_tests(workspace), workspace)
                .and_then(|suite| tools.verifiers.judge_tests_own(&suite));
            report.skipped_tests("tests with independent verifiers", outcome);
        }
        end_to_end(workspace, &tools, arguments, &mut steps, &mut report);
    }
    report.print()
}

/// What needs nothing but the source.
fn source_stages(workspace: &Workspace, steps: &mut Steps, report: &mut Report) {
    steps.announce("formatting");
    let shown = |mut command| process::shown(&mut command).map(|status| status.success());
    report.check("formatting", shown(lint::formatting(workspace)));
    steps.announce("lints");
    report.check("lints", shown(lint::lints(workspace)));
    steps.announce("documentation");
    report.check("documentation", shown(lint::documentation(workspace)));
    let dependencies = steps.quiet("dependencies", || dependencies::check(workspace));
    report.check("dependencies", dependencies);
    steps.announce("unit tests");
    report.tests("unit tests", process::counted(&mut unit_tests(workspace)));
    steps.announce("tests that need /dev/kvm");
    match host::kvm_opens() {
        Ok(()) => {
            let outcome = ignored_tests(workspace, &[PACKAGE_WITH_KVM], |_| ());
            report.skipped_tests("tests with /dev/kvm", outcome);
        }
        Err(error) => report.note(format!(
            "skipped: the ignored tests of {PACKAGE_WITH_KVM}, because /dev/kvm cannot be opened: {error}"
        )),
    }
}

fn prepare(workspace: &Workspace, steps: &mut Steps) -> Result<Tools, Error> {
    let installation = Installation::prepare(workspace, steps)?;
    let parent_kernel = steps.quiet(Kind::Parent.label(), || kernels::built(workspace, Kind::Parent))?;
    let oracle = steps.quiet("AWS's eif_build (once, 2 minutes)", || {
        oracle::installed(workspace)
    })?;
    let verifiers = steps.quiet(verifiers::STEP, || verifiers::installed(workspace))?;
    let vsock = steps.quiet(vsock_tools::STEP, || vsock_tools::built(workspace))?;
    Ok(Tools {
        installation,
        parent_kernel,
        oracle,
        verifiers,
        vsock,
    })
}

fn unit_tests(workspace: &Workspace) -> Command {
    let mut command = cargo(workspace, "test");
    command.args(["--workspace", "--exclude", suites::PACKAGE, "--no-fail-fast"]);
    command
}

/// Runs the ignored tests of [`PACKAGES_WITH_TOOLS`].
fn tests_with_tools(workspace: &Workspace, tools: &Tools) -> Result<Outcome, Error> {
    ignored_tests(workspace, &PACKAGES_WITH_TOOLS, |command| {
        command
            .env(oracle::VARIABLE, &tools.oracle)
            .env(PARENT_KERNEL, tools.parent_kernel.bzimage());
    })
}

/// Runs the ignored tests of these packages from the executables that the unit tests have left, each made ready by
/// `prepare`.
fn ignored_tests(
    workspace: &Workspace,
    packages: &[&str],
    prepare: impl Fn(&mut Command),
) -> Result<Outcome, Error> {
    let packages: Vec<PathBuf> = packages.iter().map(|package| workspace.file(package)).collect();
    let mut sum = Outcome::NOTHING;
    for test in test_executables(unit_tests(workspace), workspace)? {
        if packages.contains(&test.package) {
            let mut command = Command::new(&test.path);
            command.arg("--ignored").current_dir(&test.package);
            prepare(&mut command);
            sum = sum.and(process::counted(&mut command)?);
        }
    }
    Ok(sum)
}

/// The executable with the tests that ask [`Verifiers`].
fn attestation_tests(build: Command, workspace: &Workspace) -> Result<Executable, Error> {
    test_executables(build, workspace)?
        .into_iter()
        .find(|test| test.name == verifiers::TEST && test.package.ends_with(verifiers::PACKAGE))
        .ok_or_else(|| Error::NotBuilt(verifiers::TEST.into()))
}

/// What the `cargo test` of `build` would run.
fn test_executables(mut build: Command, workspace: &Workspace) -> Result<Vec<Executable>, Error> {
    build.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let messages = process::captured(&mut build, &workspace.log("unit-tests"))?;
    let mut tests = cargo::executables(&messages);
    tests.retain(|executable| executable.is_test);
    Ok(tests)
}

fn end_to_end(
    workspace: &Workspace,
    tools: &Tools,
    arguments: &Arguments,
    steps: &mut Steps,
    report: &mut Report,
) {
    let built = steps.quiet("end-to-end suites", || suites::built(workspace));
    let Some(Suites { suites, guests }) = report.needed("end-to-end suites", built) else {
        return;
    };
    for name in &arguments.suites {
        if !suites.iter().any(|suite| suite.name == *name) {
            report.check(&format!("suite {name}, which does not exist"), Ok(false));
        }
    }
    steps.announce("end-to-end tests, each suite in a parent instance of its own");
    for suite in suites {
        let wanted = if arguments.suites.is_empty() {
            suite.only_when_named().map(|only| !only)
        } else {
            Ok(arguments.suites.contains(&suite.name))
        };
        let Some(wanted) = report.needed(&format!("suite {}", suite.name), wanted) else {
            continue;
        };
        if wanted {
            eprintln!("\n      suite {}", suite.name);
            if suite.name == verifiers::SUITE {
                suite_with_documents(workspace, tools, &suite, &guests, arguments, report);
            } else {
                let outcome = run_suite(workspace, tools, &suite, &guests, &arguments.harness, None);
                report.tests(&format!("suite {}", suite.name), outcome);
            }
        }
    }
}

/// Runs the suite that leaves documents of an enclave behind, then asks the verifiers about these.
fn suite_with_documents(
    workspace: &Workspace,
    tools: &Tools,
    suite: &Suite,
    guests: &[PathBuf],
    arguments: &Arguments,
    report: &mut Report,
) {
    let documents = verifiers::documents_directory(workspace);
    let Some(documents) = report.needed("a directory for documents", documents) else {
        return;
    };
    let share = Some(documents.clone());
    let outcome = run_suite(workspace, tools, suite, guests, &arguments.harness, share);
    report.tests(&format!("suite {}", suite.name), outcome);
    // With a choice of tests, the one that makes documents may not have run.
    if !arguments.harness.is_empty() && !documents.join(verifiers::ROOT).exists() {
        return;
    }
    let everything = arguments.suites.is_empty();
    let build = if everything {
        unit_tests(workspace)
    } else {
        let mut build = cargo(workspace, "test");
        build.args(["--package", verifiers::PACKAGE]);
        build
    };
    let outcome =
        attestation_tests(build, workspace).and_then(|suite| tools.verifiers.judge(&suite, &documents));
    let stage = "independent verifiers of an enclave's documents";
    if everything {
        report.skipped_tests(stage, outcome);
    } else {
        report.tests(stage, outcome);
    }
}

/// `share` is a directory of this host that the parent has at `/share`.
fn run_suite(
    workspace: &Workspace,
    tools: &Tools,
    suite: &Suite,
    guests: &[PathBuf],
    harness: &[String],
    share: Option<PathBuf>,
) -> Result<Outcome, Error> {
    let parent = suite.parent()?;
    let mut config = tools
        .installation
        .parent(workspace, &tools.parent_kernel, &parent.machine);
    config.share = share.or(config.share);
    let mut packages = Vec::new();
    if parent.machine.systemd {
        for version in [package::VERSION, package::NEXT_VERSION] {
            let output = workspace.output("packages");
            packages.push(package::built(workspace, &tools.installation, version, &output)?);
        }
    }
    let extras = Extras {
        guests,
        vmlinux: &tools.installation.kernel.vmlinux(),
        oracle: &tools.oracle,
        vsock_tools: &tools.vsock,
        packages: &packages,
    };
    suite.place(&mut config, &extras);
    suite.run(config, [&parent.command, harness].concat())
}
