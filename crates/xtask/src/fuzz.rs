//! `cargo xtask fuzz`: the targets of `crates/fuzz-targets` under libFuzzer, each for a bounded time.
//!
//! ```text
//! crates/fuzz-targets/corpus/TARGET      seeds; --keep adds inputs that reach code which none of these does
//! crates/fuzz-targets/failures/TARGET    inputs that a target failed on; `cargo test` replays them ever after
//! target/xtask/fuzz/TARGET               what this checkout's runs have found so far, where the next one goes on
//! ```
//!
//! libFuzzer needs each branch and comparison to count itself. A stable compiler adds that when it is told to by `-Cpasses`;
//! only sanitizers would need a nightly one, and there is no unsafe code in what is fuzzed. Debug assertions and overflow
//! checks are on.

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

/// How a target did.
#[derive(Debug)]
struct Run {
    target: String,
    inputs: u64,
    time: Duration,
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
    let program = steps.quiet("targets", || built(workspace))?;
    let mut runs = Vec::new();
    for target in targets {
        let what = format!("{target}, {} minutes", arguments.minutes);
        runs.push(steps.quiet(&what, || fuzz(workspace, &program, &target, arguments))?);
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

fn built(workspace: &Workspace) -> Result<PathBuf, Error> {
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
    cargo::executables(&messages)
        .into_iter()
        .find(|executable| executable.kind == "bin" && executable.name == PROGRAM)
        .map(|executable| executable.path)
        .ok_or_else(|| Error::NotBuilt(PROGRAM.into()))
}

fn fuzz(workspace: &Workspace, program: &Path, target: &str, arguments: &Arguments) -> Result<Run, Error> {
    let found = workspace.output("fuzz").join(target);
    let corpus = workspace.file(TARGETS).join("corpus").join(target);
    let failures = workspace.file(TARGETS).join("failures").join(target);
    for directory in [&found, &failures] {
        fs::create_dir_all(directory).map_err(at("create", directory))?;
    }
    let log = workspace.log(&format!("fuzz-{target}"));
    let seconds = arguments.minutes * 60;
    let mut command = Command::new(program);
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
    if arguments.keep {
        keep(workspace, program, target, [&corpus, &found])?;
    }
    Ok(Run {
        target: target.to_owned(),
        inputs: executed(&output),
        time,
        failure: failure.map(|error| artifact(&output).unwrap_or_else(|| error.to_string())),
    })
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

fn table(runs: &[Run]) -> String {
    let line = |words: [&str; 5]| {
        let [target, inputs, seconds, rate, failure] = words;
        format!("{target:<25} {inputs:>12} {seconds:>8} {rate:>10}  {failure}\n")
    };
    let mut text = line(["target", "inputs", "seconds", "per second", "failure"]);
    for run in runs {
        let seconds = run.time.as_secs().max(1);
        text += &line([
            &run.target,
            &run.inputs.to_string(),
            &seconds.to_string(),
            &(run.inputs / seconds).to_string(),
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
    fn a_failure_has_its_place_in_the_table() {
        let run = |failure: Option<&str>| Run {
            target: "eif".to_owned(),
            inputs: 5000,
            time: Duration::from_secs(10),
            failure: failure.map(str::to_owned),
        };
        let table = table(&[run(None), run(Some("/w/crash-1"))]);
        let words =
            |line: usize| -> Vec<&str> { table.lines().nth(line).unwrap_or("").split_whitespace().collect() };
        assert_eq!(words(1), ["eif", "5000", "10", "500", "none"]);
        assert_eq!(words(2), ["eif", "5000", "10", "500", "/w/crash-1"]);
    }
}
