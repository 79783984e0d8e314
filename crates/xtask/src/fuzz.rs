//! `cargo xtask fuzz`: the targets of `crates/fuzz-targets` under libFuzzer, each for a bounded time.
//!
//! ```text
//! crates/fuzz-targets/corpus/TARGET      seeds; --keep adds inputs that reach code which none of these does
//! crates/fuzz-targets/failures/TARGET    inputs that a target failed on; `cargo test` replays them ever after
//! target/xtask/fuzz/TARGET               what this checkout's runs have found so far, where the next one goes on
//! ```
//!
//! What is said of a target is how many inputs it was given, and how much of the code that it is about (`modules` in
//! `crates/fuzz-targets/src/lib.rs`) those that are kept and those found reach: `fuzz/src/bin/coverage` is built with the same counters and
//! replays them. `target/xtask/fuzz-TARGET-coverage` says it file by file, with the lines that none has reached.
//!
//! libFuzzer needs each branch and comparison to count itself. A stable compiler adds that when it is told to by `-Cpasses`;
//! only sanitizers would need a nightly one, and there is no unsafe code in what is fuzzed. Debug assertions and overflow
//! checks are on.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Args;

use crate::cargo::{self, cargo};
use crate::error::{Error, at};
use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{apt, process};

/// Where corpora and failures are.
const TARGETS: &str = "crates/fuzz-targets";

/// Links targets and libFuzzer.
const PROGRAM: &str = "fuzz";

/// Links targets, and counts edges itself.
const COVERAGE: &str = "coverage";

/// Inline counters of edges, a table of program counters, and the operands of comparisons.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Seconds for one input, MiB of memory, and bytes of the longest input: more than any parser but that of EIFs takes.
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=16384"];

/// `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Minutes for each target
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Add inputs that reach new code to the corpus in this checkout
    #[arg(long)]
    keep: bool,
    /// Run only these; all if there are none
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// What is built.
#[derive(Debug)]
struct Programs {
    fuzz: PathBuf,
    coverage: PathBuf,
}

/// Edges of the code that a target is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edges {
    reached: u64,
    all: u64,
}

/// How a target did.
#[derive(Debug)]
struct Run {
    target: String,
    inputs: u64,
    time: Duration,
    /// `None` if an input that was kept fails.
    edges: Option<Edges>,
    /// What it wrote if it did not survive an input.
    failure: Option<String>,
}

/// Builds, runs one target after the other, and prints a table.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode, Error> {
    let known = names(&workspace.file(TARGETS).join("corpus"))?;
    if let Some(unknown) = arguments.targets.iter().find(|name| !known.contains(name)) {
        return Err(Error::NoFuzzTarget {
            name: unknown.clone(),
            known: known.join(", "),
        });
    }
    let is_chosen = |name: &String| arguments.targets.is_empty() || arguments.targets.contains(name);
    let targets: Vec<String> = known.into_iter().filter(is_chosen).collect();
    let mut steps = Steps::new(2 + targets.len());
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let programs = steps.quiet("targets", || built(workspace))?;
    let mut runs = Vec::new();
    for target in targets {
        let what = format!("{target}, {} minutes", arguments.minutes);
        runs.push(steps.quiet(&what, || fuzz(workspace, &programs, &target, arguments))?);
    }
    print!("{}", table(&runs));
    let failed = runs.iter().any(|run| run.failure.is_some());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(directory).map_err(at("read", directory))?;
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok(names)
}

fn built(workspace: &Workspace) -> Result<Programs, Error> {
    let mut build = cargo(workspace, "build");
    // Naming the target keeps build scripts from being instrumented.
    build
        .args(["--release", "--locked", "--target", cargo::TARGET])
        .args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"])
        .arg(workspace.output("fuzz-build"))
        .args(["--message-format", "json-render-diagnostics"])
        .env("RUSTFLAGS", INSTRUMENTATION)
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let messages = process::captured(&mut build, &workspace.log("fuzz-build"))?;
    let executables = cargo::executables(&messages);
    let path = |name: &str| {
        let mut programs = executables.iter().filter(|executable| executable.kind == "bin");
        let program = programs.find(|executable| executable.name == name);
        let path = program.map(|executable| executable.path.clone());
        path.ok_or_else(|| Error::NotBuilt(name.into()))
    };
    Ok(Programs {
        fuzz: path(PROGRAM)?,
        coverage: path(COVERAGE)?,
    })
}

fn fuzz(
    workspace: &Workspace,
    programs: &Programs,
    target: &str,
    arguments: &Arguments,
) -> Result<Run, Error> {
    let found = workspace.output("fuzz").join(target);
    let corpus = workspace.file(TARGETS).join("corpus").join(target);
    let failures = workspace.file(TARGETS).join("failures").join(target);
    for directory in [&found, &failures] {
        fs::create_dir_all(directory).map_err(at("create", directory))?;
    }
    let log = workspace.log(&format!("fuzz-{target}"));
    let seconds = arguments.minutes * 60;
    let mut command = Command::new(&programs.fuzz);
    command.env("FUZZ_TARGET", target).args(LIMITS);
    command.args([
        format!("-max_total_time={seconds}"),
        "-print_final_stats=1".to_owned(),
        // A file name is appended to it.
        format!("-artifact_prefix={}/", failures.display()),
    ]);
    let begun = Instant::now();
    let failure = match process::logged(command.arg(&found).arg(&corpus), &log) {
        Ok(()) => None,
        Err(error @ Error::Failed { .. }) => Some(error),
        Err(error) => return Err(error),
    };
    let time = begun.elapsed();
    let output = fs::read(&log).map_err(at("read", &log))?;
    let output = String::from_utf8_lossy(&output);
    let edges = match edges(workspace, &programs.coverage, target, [&corpus, &found]) {
        Ok(edges) => Some(edges),
        Err(Error::Failed { .. }) => None,
        Err(error) => return Err(error),
    };
    if arguments.keep {
        keep(workspace, &programs.fuzz, target, [&corpus, &found])?;
    }
    Ok(Run {
        target: target.to_owned(),
        inputs: executed(&output),
        time,
        edges,
        failure: failure.map(|error| artifact(&output).unwrap_or_else(|| error.to_string())),
    })
}

/// What the inputs in these directories reach.
fn edges(
    workspace: &Workspace,
    program: &Path,
    target: &str,
    directories: [&PathBuf; 2],
) -> Result<Edges, Error> {
    let mut command = Command::new(program);
    command.env("FUZZ_TARGET", target).args(directories);
    let output = process::captured(&mut command, &workspace.log(&format!("fuzz-{target}-coverage")))?;
    let by_file = workspace.output(&format!("fuzz-{target}-coverage"));
    fs::write(&by_file, &output).map_err(at("write", &by_file))?;
    counted(&output).ok_or_else(|| Error::NoEdges(target.to_owned()))
}

/// Copies from the second directory into the first what reaches code that nothing in the first does. How often an input
/// reaches it, which libFuzzer heeds otherwise, does not count: that would be three times as many files.
fn keep(
    workspace: &Workspace,
    program: &Path,
    target: &str,
    directories: [&PathBuf; 2],
) -> Result<(), Error> {
    let mut command = Command::new(program);
    command.env("FUZZ_TARGET", target).args(LIMITS);
    command
        .args(["-set_cover_merge=1", "-use_counters=0"])
        .args(directories);
    process::logged(&mut command, &workspace.log(&format!("fuzz-{target}-keep")))
}

/// From libFuzzer's last words: `stat::number_of_executed_units: 2498147`.
fn executed(output: &str) -> u64 {
    let number = |line: &str| {
        line.strip_prefix("stat::number_of_executed_units:")?
            .trim()
            .parse()
            .ok()
    };
    output.lines().rev().find_map(number).unwrap_or(0)
}

/// From libFuzzer's words on a failure: `artifact_prefix='…'; Test unit written to /path/crash-…`.
fn artifact(output: &str) -> Option<String> {
    let mut lines = output.lines().rev();
    lines.find_map(|line| Some(line.split_once("Test unit written to ")?.1.to_owned()))
}

/// From the last line of the program that counts edges: `edges 143 of 161`.
fn counted(output: &str) -> Option<Edges> {
    let (reached, all) = output
        .lines()
        .last()?
        .strip_prefix("edges ")?
        .split_once(" of ")?;
    let all = all.parse().ok().filter(|all| *all > 0)?;
    Some(Edges {
        reached: reached.parse().ok()?,
        all,
    })
}

impl fmt::Display for Edges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reached, all } = self;
        write!(f, "{reached} of {all}, {} %", reached * 100 / all)
    }
}

fn table(runs: &[Run]) -> String {
    let line = |words: [&str; 6]| {
        let [target, inputs, seconds, rate, edges, failure] = words;
        format!("{target:<25} {inputs:>12} {seconds:>8} {rate:>10} {edges:>20}  {failure}\n")
    };
    let mut text = line([
        "target",
        "inputs",
        "seconds",
        "per second",
        "edges reached",
        "failure",
    ]);
    for run in runs {
        let seconds = run.time.as_secs().max(1);
        text += &line([
            &run.target,
            &run.inputs.to_string(),
            &seconds.to_string(),
            &(run.inputs / seconds).to_string(),
            &run.edges
                .map_or_else(|| "-".to_owned(), |edges| edges.to_string()),
            run.failure.as_deref().unwrap_or("none"),
        ]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "thread '<unnamed>' panicked at src/nsm_request.rs:16:5:\n\
        artifact_prefix='/w/failures/eif/'; Test unit written to /w/failures/eif/crash-0beec7b5\n\
        stat::number_of_executed_units: 2498147\n\
        stat::new_units_added:          12\n";

    #[test]
    fn the_last_words_of_libfuzzer_are_understood() {
        assert_eq!(executed(FAILED), 2_498_147);
        assert_eq!(
            artifact(FAILED).as_deref(),
            Some("/w/failures/eif/crash-0beec7b5")
        );
        assert_eq!((executed("killed\n"), artifact("killed\n")), (0, None));
    }

    #[test]
    fn the_edges_of_all_files_are_what_counts() {
        let edges = |output| counted(output).map(|edges| edges.to_string());
        assert_eq!(
            edges("crates/eif/src/crc.rs 5 of 8, not: 7\nedges 143 of 161\n").as_deref(),
            Some("143 of 161, 88 %")
        );
        for nothing in [
            "",
            "crates/eif/src/crc.rs 5 of 8, not: 7\n",
            "edges 0 of 0\n",
            "edges 1\n",
        ] {
            assert_eq!(edges(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_failure_has_its_place_in_the_table() {
        let run = |failure: Option<&str>| Run {
            target: "eif".to_owned(),
            inputs: 5000,
            time: Duration::from_secs(10),
            edges: failure.is_none().then_some(Edges { reached: 1, all: 3 }),
            failure: failure.map(str::to_owned),
        };
        let table = table(&[run(None), run(Some("/w/crash-1"))]);
        let words =
            |line: usize| -> Vec<&str> { table.lines().nth(line).unwrap_or("").split_whitespace().collect() };
        assert_eq!(
            words(1),
            ["eif", "5000", "10", "500", "1", "of", "3,", "33", "%", "none"]
        );
        assert_eq!(words(2), ["eif", "5000", "10", "500", "-", "/w/crash-1"]);
    }
}
