//! What a test run has found so far, and its last words.

use std::error::Error as _;
use std::process::ExitCode;

use crate::error::Error;
use crate::totals::Totals;

/// How a test program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) totals: Totals,
    /// Whether its exit status was 0.
    pub(crate) succeeded: bool,
}

impl Outcome {
    /// Of no program.
    pub(crate) const NOTHING: Self = Self {
        totals: Totals {
            passed: 0,
            failed: 0,
            skipped: 0,
        },
        succeeded: true,
    };

    /// Of both programs.
    pub(crate) fn and(self, other: Self) -> Self {
        let mut totals = self.totals;
        totals += other.totals;
        Self {
            totals,
            succeeded: self.succeeded && other.succeeded,
        }
    }
}

/// Totals of all stages, and the names of those that failed.
#[derive(Debug, Default)]
pub(crate) struct Report {
    totals: Totals,
    failed_stages: Vec<String>,
    notes: Vec<String>,
}

impl Report {
    /// Takes in a stage without tests of its own: formatting, lints.
    pub(crate) fn check(&mut self, stage: &str, succeeded: Result<bool, Error>) {
        self.tests(
            stage,
            succeeded.map(|succeeded| Outcome {
                succeeded,
                ..Outcome::NOTHING
            }),
        );
    }

    /// Takes in a stage of tests.
    pub(crate) fn tests(&mut self, stage: &str, outcome: Result<Outcome, Error>) {
        let Some(Outcome {
            mut totals,
            succeeded,
        }) = self.needed(stage, outcome)
        else {
            return;
        };
        if !succeeded {
            totals.failed = totals.failed.max(1);
            self.failed_stages.push(stage.to_owned());
        }
        self.totals += totals;
    }

    /// Takes in tests that an earlier stage has counted as skipped.
    pub(crate) fn skipped_tests(&mut self, stage: &str, outcome: Result<Outcome, Error>) {
        let run = outcome
            .as_ref()
            .map_or(0, |outcome| outcome.totals.passed + outcome.totals.failed);
        self.totals.skipped = self.totals.skipped.saturating_sub(run);
        self.tests(stage, outcome);
    }

    /// Something that must not be overlooked, though it is no failure.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The result of a stage that others stand on; an error is printed and counts as one failure.
    pub(crate) fn needed<T>(&mut self, stage: &str, result: Result<T, Error>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        eprintln!("{stage}: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
        self.totals.failed += 1;
        self.failed_stages.push(stage.to_owned());
        None
    }

    /// Prints the notes, what failed and, as the very last line, the totals.
    pub(crate) fn print(&self) -> ExitCode {
        println!();
        for note in &self.notes {
            println!("{note}");
        }
        for stage in &self.failed_stages {
            println!("failed: {stage}");
        }
        let Totals {
            passed,
            failed,
            skipped,
        } = self.totals;
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: u64, failed: u64, skipped: u64, succeeded: bool) -> Outcome {
        let totals = Totals {
            passed,
            failed,
            skipped,
        };
        Outcome { totals, succeeded }
    }

    #[test]
    fn a_stage_that_fails_without_a_failed_test_counts_as_one() {
        let mut report = Report::default();
        report.tests("does not compile", Ok(outcome(0, 0, 0, false)));
        report.check("lints", Ok(false));
        report.tests("does not start", Err(Error::NoCache));
        assert_eq!(
            report.totals,
            Totals {
                passed: 0,
                failed: 3,
                skipped: 0
            }
        );
        assert_eq!(
            report.failed_stages,
            ["does not compile", "lints", "does not start"]
        );
    }

    #[test]
    fn failed_tests_count_once() {
        let mut report = Report::default();
        report.tests("unit tests", Ok(outcome(5, 2, 1, false)));
        assert_eq!(
            report.totals,
            Totals {
                passed: 5,
                failed: 2,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_test_that_runs_later_is_not_skipped() {
        let mut report = Report::default();
        report.tests("unit tests", Ok(outcome(10, 0, 4, true)));
        report.skipped_tests("with tools", Ok(outcome(2, 1, 0, false)));
        assert_eq!(
            report.totals,
            Totals {
                passed: 12,
                failed: 1,
                skipped: 1
            }
        );
    }
}
