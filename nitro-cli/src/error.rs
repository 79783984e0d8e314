//! From a failure to what the user sees: the text on standard error and the exit code.
//!
//! The text has AWS's shape, which scripts search for `[ ENN ]`:
//!
//! ```text
//! [ E19 ] File operation failure. Cannot open the EIF `hello.eif`: No such file or directory (os error 2).
//!
//! For more details, please visit https://docs.aws.amazon.com/enclaves/latest/user/cli-errors.html#E19
//!
//! If you open a support ticket, please provide the error log found at "/var/log/nitro_enclaves/err….log"
//! ```
//!
//! The last line is left out where nothing could be written down (see [`crate::log`]). With `BACKTRACE=1` the content of that
//! file comes before it.

use std::fmt;

use api::{ErrorCode, Failure};

use crate::log::{Level, Log};
use crate::output;

/// AWS's page that explains each number.
pub(crate) const ERRORS_PAGE: &str = "https://docs.aws.amazon.com/enclaves/latest/user/cli-errors.html";

/// Why a command did not succeed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// Reported with its own number.
    Failed(Failure),
    /// `run-enclave` failed after its arguments were accepted. AWS's nitro-cli does that part in a second process and
    /// sees only that the process did not answer; scripts know the failure by that answer's number, E39.
    EnclaveFailed(Failure),
    /// `verify-attestation` has come to the answer that the document is not to be trusted; this is why.
    NotVerified(String),
    /// `run-enclave --wait` has done its work, and the process ends as the application has: with this code.
    Application(u8),
    /// `doctor` has found so many things that keep enclaves from running.
    Unfit(usize),
    /// Whoever read standard output stopped reading (`| head -1`). The command did its work; there is nobody to tell.
    OutputClosed,
}

/// How errors of one command are told.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    /// The command's name.
    pub(crate) command: &'a str,
    /// Where they are written down.
    pub(crate) log: &'a Log,
    /// Whether that is shown, too.
    pub(crate) backtrace: bool,
}

impl Reporter<'_> {
    /// Writes one failure to standard error, to the log and to a file of its own.
    fn tell(&self, failure: &Failure) {
        let details = self.details(failure);
        let kept = self.log.keep_error(&details);
        let file = kept.as_ref().map(|path| format!(" ({})", path.display()));
        self.log.record(
            Level::Error,
            format_args!(
                "{}: [ {} ] {}{}",
                self.command,
                failure.code,
                // What follows may be the console of an enclave, which not everybody may see who may see the log.
                failure.message.lines().next().unwrap_or_default(),
                file.unwrap_or_default()
            ),
        );
        let mut text = Block(failure).to_string();
        if self.backtrace {
            text.push_str("\n\nBacktrace:\n");
            text.push_str(details.trim_end());
        }
        if let Some(path) = kept {
            let line = format!(
                "\n\nIf you open a support ticket, please provide the error log found at \"{}\"",
                path.display()
            );
            text.push_str(&line);
        }
        output::notice(text);
    }

    /// What is known of a failure beyond its text.
    fn details(&self, failure: &Failure) -> String {
        let Failure { code, message } = failure;
        format!(
            "  Action: {}\n  Subactions:\n    {}\n  Root error: {code} {}\n  Version: {} (enclaved {})\n",
            self.command,
            message.trim_end().replace('\n', "\n    "),
            code.title(),
            crate::arguments::AWS_VERSION,
            env!("CARGO_PKG_VERSION"),
        )
    }
}

impl CommandError {
    /// Writes the error to standard error and down: the root cause first, in AWS's order.
    pub(crate) fn report(&self, reporter: &Reporter<'_>) {
        match self {
            Self::Failed(failure) => reporter.tell(failure),
            Self::EnclaveFailed(cause) => {
                reporter.tell(cause);
                output::notice("Failed connections: 1");
                reporter.tell(&Failure::new(
                    ErrorCode::ProcessConnectionFailure,
                    "The enclave was not started; the error above is the reason",
                ));
            }
            Self::NotVerified(why) => {
                reporter.log.record(Level::Error, why);
                output::notice(why);
            }
            Self::Unfit(count) => {
                let what = if *count == 1 { "thing keeps" } else { "things keep" };
                output::notice(format_args!("{count} {what} enclaves from running here."));
            }
            Self::Application(_) | Self::OutputClosed => {}
        }
    }

    /// The exit code of the process: the one table from failure to exit code.
    ///
    /// | failure | exit code |
    /// |---|---|
    /// | any, by its own number | that number (E02 shares 2 with usage errors, as on AWS) |
    /// | E00, which no failure should have | 1, because 0 means success |
    /// | of `run-enclave`, once the arguments are accepted | 39 |
    /// | of `verify-attestation`, if the document is not to be trusted | 1 |
    /// | of the application, with `run-enclave --wait` | its own |
    /// | of `doctor`, if something keeps enclaves from running | 1 |
    /// | standard output closed by its reader | 0 |
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(failure) => failure.code.number().max(1),
            Self::EnclaveFailed(_) => ErrorCode::ProcessConnectionFailure.number(),
            Self::Application(code) => *code,
            Self::NotVerified(_) | Self::Unfit(_) => 1,
            Self::OutputClosed => 0,
        }
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// An error with all that caused it, in one line.
pub(crate) fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The `[ ENN ]` text of one failure, without a line feed at its end.
struct Block<'a>(&'a Failure);

impl fmt::Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { code, message } = self.0;
        let message = message.trim_end();
        let full_stop = if message.ends_with(['.', '!', '?']) {
            ""
        } else {
            "."
        };
        writeln!(f, "[ {code} ] {}. {message}{full_stop}", code.title())?;
        writeln!(f)?;
        write!(f, "For more details, please visit {ERRORS_PAGE}#{code}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_ends_the_process_with_its_number_and_never_with_success() {
        for code in ErrorCode::all() {
            let exit_code = CommandError::Failed(Failure::new(code, "x")).exit_code();

            assert_eq!(exit_code, if code.number() == 0 { 1 } else { code.number() });
            assert_eq!(
                CommandError::EnclaveFailed(Failure::new(code, "x")).exit_code(),
                39
            );
        }
    }

    #[test]
    fn a_block_has_number_title_explanation_and_address() {
        let failure = Failure::new(ErrorCode::EnclaveNaming, "No enclave is named `web`");

        assert_eq!(
            Block(&failure).to_string(),
            "[ E58 ] Enclave naming error. No enclave is named `web`.\n\
             \n\
             For more details, please visit \
             https://docs.aws.amazon.com/enclaves/latest/user/cli-errors.html#E58"
        );
    }

    #[test]
    fn a_message_that_is_a_sentence_gets_no_second_full_stop() {
        let failure = Failure::new(ErrorCode::SocketError, "It failed. Try again.\n");

        assert!(
            Block(&failure)
                .to_string()
                .starts_with("[ E11 ] Socket error. It failed. Try again.\n\n")
        );
    }
}
