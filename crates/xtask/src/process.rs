//! Runs other programs: their output goes to a log, of which the end is shown if they fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::error::{Error, at};
use crate::report::Outcome;
use crate::totals::Counter;

/// Lines of a log that are shown on failure.
const TAIL: usize = 40;

/// Runs `command` with all its output in the new file `log`.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<(), Error> {
    let output = create_log(command, log)?;
    command.stdout(output.try_clone().map_err(at("open", log))?);
    finish(command, output, log)
}

/// Runs `command` with its messages in the new file `log` and returns its standard output.
pub(crate) fn captured(command: &mut Command, log: &Path) -> Result<String, Error> {
    let output = create_log(command, log)?;
    command.stdin(Stdio::null()).stderr(output);
    let result = command.output().map_err(|source| Error::Spawn {
        program: name(command),
        source,
    })?;
    if result.status.success() {
        Ok(String::from_utf8_lossy(&result.stdout).into_owned())
    } else {
        Err(failed(command, result.status, log))
    }
}

/// Runs `command` on this program's own standard streams.
pub(crate) fn shown(command: &mut Command) -> Result<ExitStatus, Error> {
    command.status().map_err(|source| Error::Spawn {
        program: name(command),
        source,
    })
}

/// Runs a test harness, or cargo running several, on this program's own streams, and counts its tests.
pub(crate) fn counted(command: &mut Command) -> Result<Outcome, Error> {
    let program = name(command);
    let failed = |source| Error::Spawn { program, source };
    let mut run = || {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut counter = Counter::new(io::stdout());
        if let Some(mut output) = child.stdout.take() {
            io::copy(&mut output, &mut counter)?;
        }
        Ok(Outcome {
            totals: counter.totals(),
            succeeded: child.wait()?.success(),
        })
    };
    run().map_err(failed)
}

fn create_log(command: &Command, log: &Path) -> Result<File, Error> {
    let mut output = File::create(log).map_err(at("create", log))?;
    writeln!(output, "$ {}", line(command)).map_err(at("write", log))?;
    Ok(output)
}

fn finish(command: &mut Command, output: File, log: &Path) -> Result<(), Error> {
    command.stdin(Stdio::null()).stderr(output);
    let status = command.status().map_err(|source| Error::Spawn {
        program: name(command),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(command, status, log))
    }
}

fn failed(command: &Command, status: ExitStatus, log: &Path) -> Error {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Error::Failed {
        command: line(command),
        status,
        log: log.to_owned(),
        tail,
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_the_log() {
        let directory = tempfile::tempdir().expect("directory");
        let log = directory.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "seq 100; echo wrong >&2; exit 3"]);
        let error = logged(&mut command, &log).expect_err("exit 3").to_string();
        assert!(error.ends_with("99\n100\nwrong"), "{error}");
        assert!(!error.contains("\n50\n"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn captured_output_is_free_of_messages() {
        let directory = tempfile::tempdir().expect("directory");
        let mut command = Command::new("sh");
        command.args(["-c", "echo result; echo message >&2"]);
        let output = captured(&mut command, &directory.path().join("log")).expect("success");
        assert_eq!(output, "result\n");
    }
}
