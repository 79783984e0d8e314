//! Counts tests from what Rust's test harness prints.

use std::io::{self, Write};
use std::ops::AddAssign;

/// How many tests had which result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl Totals {
    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    fn parse(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |word| {
            let part = counts.split("; ").find_map(|part| part.strip_suffix(word))?;
            part.trim_end().parse().ok()
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }
}

/// Passes output on and adds up the result lines in it.
#[derive(Debug)]
pub(crate) struct Counter<W> {
    output: W,
    line: Vec<u8>,
    totals: Totals,
}

/// Longer lines cannot be result lines; no more of them is kept.
const MAX_LINE: usize = 256;

impl<W: Write> Counter<W> {
    pub(crate) fn new(output: W) -> Self {
        Self {
            output,
            line: Vec::new(),
            totals: Totals::default(),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }
}

impl<W: Write> Write for Counter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        for &byte in bytes.iter().take(count) {
            if byte == b'\n' {
                if let Some(totals) = Totals::parse(&String::from_utf8_lossy(&self.line)) {
                    self.totals += totals;
                }
                self.line.clear();
            } else if self.line.len() < MAX_LINE {
                self.line.push(byte);
            }
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 4 tests\ntest a ... ok\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\n\
        test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s\n";

    #[test]
    fn result_lines_add_up_however_they_are_cut() {
        for size in [1, 7, 4096] {
            let mut counter = Counter::new(Vec::new());
            for piece in OUTPUT.as_bytes().chunks(size) {
                counter.write_all(piece).expect("a vector");
            }
            assert_eq!(
                counter.totals(),
                Totals {
                    passed: 13,
                    failed: 2,
                    skipped: 1
                }
            );
            assert_eq!(counter.output, OUTPUT.as_bytes());
        }
    }

    #[test]
    fn other_lines_do_not_count() {
        let long = format!(
            "{}test result: ok. 1 passed; 0 failed; 0 ignored\n",
            "x".repeat(1000)
        );
        let text = [
            long.as_str(),
            "test result: ok\n",
            "a test result: ok. 1 passed; 0 failed; 0 ignored;\n",
        ];
        let mut counter = Counter::new(Vec::new());
        counter.write_all(text.concat().as_bytes()).expect("a vector");
        assert_eq!(counter.totals(), Totals::default());
    }
}
