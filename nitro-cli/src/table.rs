//! Rows of text in columns, for people.

use crate::error::CommandError;
use crate::output;

/// Between two columns.
const GAP: &str = "  ";

/// Prints `rows` below `head`, each column as wide as its longest text. Names are what users have chosen, so control
/// characters are replaced before they reach a terminal.
///
/// # Errors
/// As [`output::print_text`].
pub(crate) fn print<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> Result<(), CommandError> {
    output::print_text(&lay_out(head, rows))
}

fn lay_out<const COLUMNS: usize>(
    head: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let visible = |text: String| text.replace(char::is_control, "\u{fffd}");
    let mut table = vec![head.map(str::to_owned)];
    table.extend(rows.into_iter().map(|row| row.map(visible)));
    let width = |column: usize| {
        let texts = table.iter().filter_map(|row| row.get(column));
        texts.map(|text| text.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &table {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join(GAP);
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_text_and_show_no_control_characters() {
        let rows = [["hello", "16"], ["\u{1b}[2Jzwölf", ""]].map(|row| row.map(str::to_owned));

        assert_eq!(
            lay_out(["NAME", "CID"], rows),
            "NAME       CID\nhello      16\n\u{fffd}[2Jzwölf\n"
        );
        assert_eq!(lay_out(["NAME", "CID"], []), "NAME  CID\n");
    }
}
