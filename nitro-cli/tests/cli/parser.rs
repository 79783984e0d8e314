//! The rules of AWS's options, each of which AWS's own tests of its parser has: what is required, what excludes what, what
//! takes exactly one value. What is said about a line that is refused is tested in `usage`.

use crate::program::Program;

/// One command and its rules. Options stand without their dashes.
struct Rules {
    command: &'static str,
    /// Lines that are accepted, after the command's name.
    accepted: &'static [&'static str],
    /// Of the first accepted line: options that cannot be left out.
    required: &'static [&'static str],
    /// Options that take exactly one value.
    one_value: &'static [&'static str],
    /// Options without a value.
    flags: &'static [&'static str],
    /// Options, with values, that cannot be added to the first accepted line.
    conflicts: &'static [&'static str],
}

const RULES: &[Rules] = &[
    Rules {
        command: "build-enclave",
        accepted: &[
            "--docker-uri image --output-file a.eif",
            "--docker-uri=image --output-file=a.eif --name n --version v --metadata m.json",
            "--docker-uri image --output-file a.eif --signing-certificate c.pem --private-key k.pem",
        ],
        required: &["docker-uri", "output-file"],
        one_value: &[
            "docker-uri",
            "output-file",
            "name",
            "version",
            "metadata",
            "signing-certificate",
            "private-key",
        ],
        flags: &[],
        conflicts: &["--signing-certificate c.pem", "--private-key k.pem"],
    },
    Rules {
        command: "run-enclave",
        accepted: &[
            "--cpu-count 2 --memory 64 --eif-path a.eif",
            "--cpu-ids 2 3 --memory 64 --eif-path a.eif",
            "--cpu-ids=2 --memory=2G --eif-path=a.eif --enclave-cid=16 --enclave-name=n --debug-mode --attach-console",
            "--config a.json",
            "--config a.json --attach-console",
        ],
        required: &["cpu-count", "memory", "eif-path"],
        one_value: &[
            "cpu-count",
            "memory",
            "eif-path",
            "enclave-cid",
            "enclave-name",
            "config",
        ],
        flags: &["debug-mode", "attach-console"],
        conflicts: &["--cpu-ids 2", "--config a.json"],
    },
    Rules {
        command: "run-enclave",
        accepted: &["--config a.json"],
        required: &["config"],
        one_value: &["config"],
        flags: &["attach-console"],
        conflicts: &[
            "--cpu-count 2",
            "--cpu-ids 2",
            "--memory 64",
            "--eif-path a.eif",
            "--enclave-cid 16",
            "--enclave-name n",
            "--debug-mode",
        ],
    },
    Rules {
        command: "terminate-enclave",
        accepted: &["--enclave-id i", "--enclave-name n", "--all"],
        required: &["enclave-id"],
        one_value: &["enclave-id", "enclave-name"],
        flags: &["all"],
        conflicts: &["--enclave-name n", "--all"],
    },
    Rules {
        command: "terminate-enclave",
        accepted: &["--all"],
        required: &["all"],
        one_value: &[],
        flags: &["all"],
        conflicts: &["--enclave-id i", "--enclave-name n"],
    },
    Rules {
        command: "describe-enclaves",
        accepted: &["", "--metadata"],
        required: &[],
        one_value: &[],
        flags: &["metadata"],
        conflicts: &[],
    },
    Rules {
        command: "console",
        accepted: &[
            "--enclave-id i",
            "--enclave-name n",
            "--enclave-id i --disconnect-timeout 10",
        ],
        required: &["enclave-id"],
        one_value: &["enclave-id", "enclave-name", "disconnect-timeout"],
        flags: &[],
        conflicts: &["--enclave-name n"],
    },
    Rules {
        command: "describe-eif",
        accepted: &["--eif-path a.eif"],
        required: &["eif-path"],
        one_value: &["eif-path"],
        flags: &[],
        conflicts: &[],
    },
    Rules {
        command: "pcr",
        accepted: &["--signing-certificate c.pem", "--input a"],
        required: &["signing-certificate"],
        one_value: &["signing-certificate", "input"],
        flags: &[],
        conflicts: &["--input a"],
    },
    Rules {
        command: "explain",
        accepted: &["--error-code E26"],
        required: &["error-code"],
        one_value: &["error-code"],
        flags: &[],
        conflicts: &[],
    },
    Rules {
        command: "sign-eif",
        accepted: &[
            "--eif-path a.eif --signing-certificate c.pem --private-key k.pem",
            "--signing-certificate c.pem --private-key k.pem",
            "--eif-path a.eif",
        ],
        required: &["signing-certificate", "private-key"],
        one_value: &["eif-path", "signing-certificate", "private-key"],
        flags: &[],
        conflicts: &[],
    },
];

/// A command line as words.
type Line = Vec<String>;

fn words(text: &str) -> Line {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Rules {
    fn line(&self, options: &str) -> Line {
        [words(self.command), words(options)].concat()
    }

    /// Lines that break one rule each.
    fn refused(&self) -> Vec<Line> {
        let first = self.line(self.accepted[0]);
        let without = |option: &str| {
            let mut line = first.clone();
            let at = line
                .iter()
                .position(|word| *word == format!("--{option}"))
                .unwrap();
            let end = line[at + 1..].iter().position(|word| word.starts_with("--"));
            line.drain(at..end.map_or(line.len(), |end| at + 1 + end));
            line
        };
        let with = |more: &[&str]| {
            let mut line = first.clone();
            line.extend(more.iter().copied().map(str::to_owned));
            line
        };
        let mut lines = vec![with(&["extra"])];
        lines.extend(self.required.iter().map(|option| without(option)));
        for option in self.one_value {
            let option = format!("--{option}");
            if !first.contains(&option) {
                lines.push(with(&[&option]));
                lines.push(with(&[&option, "a", "b"]));
            }
            lines.push(with(&[&option, "a", &option, "a"]));
        }
        for flag in self.flags {
            let flag = format!("--{flag}");
            lines.push(with(&[&format!("{flag}=true")]));
            lines.push(with(&[&flag, "true"]));
            lines.push(with(&[&flag, &flag]));
        }
        let conflicts = self.conflicts.iter();
        lines.extend(conflicts.map(|more| with(&more.split_whitespace().collect::<Vec<_>>())));
        lines
    }
}

#[test]
fn what_awss_parser_accepts_is_accepted() {
    // Nothing of what the lines name is there.
    let directory = tempfile::tempdir().unwrap();
    for rules in RULES {
        for options in rules.accepted {
            let line = rules.line(options);

            let finished = Program::new(&line).directory(directory.path()).run();

            assert_ne!(finished.code, 2, "{line:?}: {finished:#?}");
        }
    }
}

#[test]
fn what_awss_parser_refuses_is_refused_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let lines: Vec<Line> = RULES.iter().flat_map(Rules::refused).collect();
    for line in &lines {
        let finished = Program::new(line).directory(directory.path()).run();

        assert_eq!(finished.code, 2, "{line:?}: {finished:#?}");
        assert_eq!(finished.stdout, "", "{line:?}");
        assert!(finished.stderr.starts_with("error: "), "{line:?}: {finished:#?}");
    }
    assert!(lines.len() > 55, "{}", lines.len());
}
