//! `completions` and `man-pages`: what is made of the parser, so that it cannot say anything else than the parser does.

use std::fs;
use std::path::Path;

use api::{ErrorCode, Failure};
use clap::CommandFactory;

use crate::arguments::{Arguments, Completions, ManPages, PROGRAM};
use crate::error::CommandError;
use crate::output;

/// Prints the script that a shell completes command lines with.
pub(super) fn completions(options: &Completions) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), PROGRAM, &mut script);
    output::print_text(&String::from_utf8_lossy(&script))
}

/// Writes a page for the program, and one for each command, to a directory that is made if it is missing.
///
/// # Errors
/// E19.
pub(super) fn man_pages(options: &ManPages) -> Result<(), CommandError> {
    // Pages are named after what is typed, not after what `--version` prints.
    let command = Arguments::command().display_name(PROGRAM);
    fs::create_dir_all(&options.directory)
        .and_then(|()| clap_mangen::generate_to(command, &options.directory))
        .map_err(|error| unwritable(&options.directory, &error).into())
}

fn unwritable(directory: &Path, error: &std::io::Error) -> Failure {
    let context = format!("Cannot write manual pages to `{}`", directory.display());
    Failure::caused_by(ErrorCode::FileOperation, &context, error)
}
