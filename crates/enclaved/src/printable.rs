//! Text from a guest or a VMM, made safe to show on a terminal and in a log.

/// `bytes` as text in which every control character but the line feed, and every malformed byte, is replaced by
/// U+FFFD. A carriage return before a line feed is dropped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let shown = |character: char| match character {
        '\n' => '\n',
        '\t' => ' ',
        control if control.is_control() => char::REPLACEMENT_CHARACTER,
        other => other,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_broken_text_cannot_reach_a_terminal() {
        assert_eq!(
            printable(b"a\x1b[31m\tb\r\nc\xff\x07"),
            "a\u{fffd}[31m b\nc\u{fffd}\u{fffd}"
        );
    }
}
