//! `cargo xtask bench nsm`: how often an enclave's security module answers, and how fast documents are signed alone.
//!
//! Three places are measured, the first on this host and the others in a parent instance:
//!
//! ```text
//! sign      attestation::write, on this host             the processor
//! sign      the same program, in the parent instance     its emulation, many times slower
//! ask       nsm-client in an enclave of that parent      that, the rate limits of the daemon, and the way between:
//!           guest kernel → virtio → VMM → daemon → back, one request at a time
//! ```
//!
//! Programs print lines `rate: WHAT: ONE ONE …`, a number per second for each run; here they become medians in a table.
//! The limits are those of `enclaved`'s `security_module/rate.rs`. A second's worth of requests may come at once, so that a run
//! of five seconds can show up to six fifths of a limit.

use std::process::{Command, ExitCode};

use parent_instance::{ParentInstance, Session};

use crate::cargo::{self, cargo};
use crate::error::Error;
use crate::installation::{self, Installation};
use crate::kernels::{self, Kind};
use crate::parent::file;
use crate::steps::Steps;
use crate::suites::{self, Suite, Suites};
use crate::workspace::Workspace;
use crate::{apt, process};

/// The suite with the enclave, and what measures in it.
const SUITE: &str = "nsm";
const ASK: &str = "how_often_an_enclave_can_ask";

/// The package whose test executable signs, and what measures in it.
const PACKAGE: &str = "attestation";
const SIGN: &str = "speed::documents_per_second";

/// Tells both how many runs are wanted.
const RUNS: &str = "BENCH_RUNS";

/// Where the signing program is in the parent.
const SIGN_IN_PARENT: &str = "/opt/enclaved/sign";

/// Measures and prints a table.
pub(super) fn run(workspace: &Workspace, runs: u32) -> Result<ExitCode, Error> {
    let mut steps = Steps::new(installation::STEPS + 6);
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let installation = Installation::prepare(workspace, &mut steps)?;
    let kernel = steps.quiet(Kind::Parent.label(), || kernels::built(workspace, Kind::Parent))?;
    let Suites { suites, guests } = steps.quiet("suite and application", || suites::built(workspace))?;
    let suite = suites
        .into_iter()
        .find(|suite| suite.name == SUITE)
        .ok_or_else(|| Error::NotBuilt(SUITE.into()))?;
    let sign = steps.quiet("signing alone", || built(workspace))?;

    let mut command = Command::new(&sign.path);
    command.args(["--ignored", "--exact", SIGN, "--nocapture"]);
    command.env(RUNS, runs.to_string()).current_dir(&sign.package);
    let log = workspace.log("bench-sign");
    let on_host = steps.quiet("measuring on this host", || process::captured(&mut command, &log))?;

    let mut config = installation.parent(workspace, &kernel, &suite.parent()?.machine);
    suite.place_with_guests(&mut config, &guests);
    config.files.push(file(&sign.path, SIGN_IN_PARENT));
    steps.announce("measuring in a parent instance");
    let mut in_parent = Vec::new();
    let session = Session::Command(["sh", "-c", &script(&suite, runs)].map(str::to_owned).into());
    let exit = ParentInstance::prepare(config)?.run_with(&session, &mut in_parent, std::io::stderr())?;
    let in_parent = String::from_utf8_lossy(&in_parent);
    if exit.status != 0 {
        print!("{in_parent}");
        return Ok(crate::parent::finish(&exit));
    }
    let figures = [
        ("on this host", rates(&on_host)),
        ("in the parent", rates(&in_parent)),
    ];
    print!("{}", table(&figures));
    Ok(ExitCode::SUCCESS)
}

/// What runs in the parent.
fn script(suite: &Suite, runs: u32) -> String {
    let ask = suite.program();
    format!(
        "export {RUNS}={runs} && {SIGN_IN_PARENT} --ignored --exact {SIGN} --nocapture && \
         {ask} --exact {ASK} --nocapture --test-threads 1"
    )
}

/// As the daemon is built, so that what signs is the same code.
fn built(workspace: &Workspace) -> Result<cargo::Executable, Error> {
    let mut build = cargo(workspace, "test");
    cargo::release_static(&mut build)
        .args(["--package", PACKAGE, "--test", "suite", "--no-run"])
        .args(["--message-format", "json-render-diagnostics"]);
    let messages = process::captured(&mut build, &workspace.log("bench-sign-build"))?;
    cargo::executables(&messages)
        .into_iter()
        .find(|executable| executable.is_test)
        .ok_or_else(|| Error::NotBuilt(PACKAGE.into()))
}

/// One figure, in ascending order, per second; at least one.
#[derive(Debug, PartialEq)]
struct Rates {
    what: String,
    runs: Vec<f64>,
}

/// Those in the output of a program. The test harness may have begun a line before it.
fn rates(output: &str) -> Vec<Rates> {
    let lines = output.lines().filter_map(|line| line.split_once("rate: "));
    lines
        .filter_map(|(_, rates)| {
            let (what, runs) = rates.split_once(": ")?;
            let mut runs: Vec<f64> = runs.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            runs.sort_by(f64::total_cmp);
            let what = what.to_owned();
            (!runs.is_empty()).then_some(Rates { what, runs })
        })
        .collect()
}

impl Rates {
    fn median(&self) -> f64 {
        let upper = self.runs.len() / 2;
        let lower = (self.runs.len() - 1) / 2;
        f64::midpoint(self.runs[lower], self.runs[upper])
    }
}

/// What stands beside a figure.
fn limit(what: &str) -> &'static str {
    match what {
        "GetRandom" => "at most 20000 by the daemon; one request at a time, there and back",
        "Attestation" => "at most 200 by the daemon; below that, signing and the way there and back",
        _ => "one core",
    }
}

fn table(figures: &[(&str, Vec<Rates>)]) -> String {
    let line = |words: [&str; 5]| {
        let [what, place, median, range, limit] = words;
        format!("{what:<20} {place:<14} {median:>10} {range:>17}  {limit}\n")
    };
    let mut text = line(["per second", "", "median", "least to most", "limited by"]);
    for (place, rates) in figures {
        for figure in rates {
            let median = format!("{:.0}", figure.median());
            let (least, most) = (figure.runs.first(), figure.runs.last());
            let range = format!("{:.0} to {:.0}", least.unwrap_or(&0.0), most.unwrap_or(&0.0));
            text += &line([&figure.what, place, &median, &range, limit(&figure.what)]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_found_wherever_they_stand_in_a_line() {
        let output = "running 1 test\ntest a ... rate: GetRandom: 30.5 10 20\nrate: Attestation: 4\n\
            rate: nothing: \nrate: wrong: x\nok\n";
        let rates = rates(output);
        let short: Vec<_> = rates
            .iter()
            .map(|rate| (rate.what.as_str(), rate.median()))
            .collect();
        assert_eq!(short, [("GetRandom", 20.0), ("Attestation", 4.0)]);
    }

    #[test]
    fn a_figure_has_its_place_range_and_limit_in_the_table() {
        let figures = [("in the parent", rates("rate: GetRandom: 30 10 20 40"))];
        let table = table(&figures);
        let line = table.lines().nth(1).unwrap_or("");
        for word in ["GetRandom", "in the parent", " 25 ", "10 to 40", "20000"] {
            assert!(line.contains(word), "{word} {line}");
        }
    }
}
