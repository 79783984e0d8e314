//! The lines that `init.sh` sends through the `status` port.

/// One step of the machine's process 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    /// Process 1 runs.
    Init,
    /// The command starts.
    Ready,
    /// The command has ended, and has written this many bytes to each of its streams.
    Exit { code: u8, stdout: u64, stderr: u64 },
    /// The machine could not be made ready.
    Failed(String),
}

impl Status {
    /// Reads one line without its end. Anything else than a known line is `None`.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "init" => Some(Self::Init),
            "ready" => Some(Self::Ready),
            "failed" => Some(Self::Failed(rest.to_owned())),
            "exit" => {
                let mut numbers = rest.split(' ');
                let code = numbers.next()?.parse().ok()?;
                let stdout = numbers.next()?.parse().ok()?;
                let stderr = numbers.next()?.parse().ok()?;
                Some(Self::Exit { code, stdout, stderr })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_understood() {
        assert_eq!(Status::parse("init"), Some(Status::Init));
        assert_eq!(Status::parse("ready"), Some(Status::Ready));
        assert_eq!(
            Status::parse("failed no hugepages"),
            Some(Status::Failed("no hugepages".into()))
        );
        let exit = Status::Exit {
            code: 137,
            stdout: 1_048_576,
            stderr: 0,
        };
        assert_eq!(Status::parse("exit 137 1048576 0"), Some(exit));
    }

    #[test]
    fn incomplete_or_unknown_lines_are_not() {
        for line in [
            "",
            "exit",
            "exit 1",
            "exit 1 2",
            "exit 256 0 0",
            "exit -1 0 0",
            "exit a b c",
            "hello",
        ] {
            assert_eq!(Status::parse(line), None, "{line}");
        }
    }
}
