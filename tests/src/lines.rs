//! What applications print on the console, line by line.

/// The rest of the first line of `text` that begins with `start`. Consoles end lines as terminals do; that is cut off.
///
/// # Panics
/// If there is none.
#[track_caller]
pub fn rest_of_line<'t>(text: &'t str, start: &str) -> &'t str {
    let mut lines = text.lines().map(str::trim_end);
    lines
        .find_map(|line| line.strip_prefix(start))
        .unwrap_or_else(|| panic!("no line begins with {start:?}:\n{text}"))
}
