//! `explain`: what an error's number means, on standard error, as AWS's nitro-cli does; it never fails.

use api::ErrorCode;

use crate::arguments::Explain;
use crate::error::ERRORS_PAGE;
use crate::explanations::explanation;
use crate::output;

pub(super) fn execute(options: &Explain) {
    let asked = options.error_code.trim();
    match ErrorCode::all().find(|code| code.to_string() == asked) {
        Some(code) => output::notice(format_args!(
            "[ {code} ] {}. {}\n\nFor more details, please visit {ERRORS_PAGE}#{code}",
            code.title(),
            explanation(code),
        )),
        None => output::notice(format_args!(
            "No such error code {asked}. They are written as between the brackets of an error, E00 to E60."
        )),
    }
}
