//! What the workspace depends on: licences, sources, and that there is one vm-memory.
//!
//! `deny.toml` says the same to cargo-deny, which takes minutes to install and is not needed here.

use serde::Deserialize;

use crate::cargo::{TARGET, cargo};
use crate::error::Error;
use crate::process;
use crate::workspace::Workspace;

/// Licences of code that may be linked, by their SPDX identifiers.
const LICENCES: [&str; 8] = [
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BlueOak-1.0.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// The only place that code comes from, besides the workspace.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Must be there in one version: two generations of rust-vmm do not understand each other's memory.
const SINGLE: &str = "vm-memory";

/// The parts of `cargo metadata` that are looked at (the Cargo book, "cargo metadata").
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Prints what is wrong and tells whether nothing is.
pub(crate) fn check(workspace: &Workspace) -> Result<bool, Error> {
    let mut metadata = cargo(workspace, "metadata");
    metadata.args(["--format-version", "1", "--locked", "--filter-platform", TARGET]);
    let output = process::captured(&mut metadata, &workspace.log("metadata"))?;
    let metadata = serde_json::from_str(&output).map_err(Error::Metadata)?;
    let problems = problems(&metadata);
    for problem in &problems {
        eprintln!("{problem}");
    }
    Ok(problems.is_empty())
}

fn problems(metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let Package { name, version, .. } = package;
        match &package.license {
            Some(licence) if is_allowed(licence) => {}
            Some(licence) => problems.push(format!(
                "the licence of {name} {version} is not allowed: {licence}"
            )),
            None => problems.push(format!("{name} {version} names no licence")),
        }
        let is_ours = package.source.is_none() && metadata.workspace_members.contains(&package.id);
        if !is_ours && package.source.as_deref() != Some(SOURCE) {
            let source = package.source.as_deref().unwrap_or("a directory");
            problems.push(format!(
                "{name} {version} comes from {source}, not from crates.io"
            ));
        }
    }
    let versions: Vec<&str> = metadata
        .packages
        .iter()
        .filter(|package| package.name == SINGLE)
        .map(|package| package.version.as_str())
        .collect();
    if versions.len() != 1 {
        problems.push(format!(
            "{SINGLE} must be there once, not as: {}",
            versions.join(", ")
        ));
    }
    problems
}

/// Whether an SPDX expression leaves a choice of allowed licences. Anything that is no such expression does not.
fn is_allowed(expression: &str) -> bool {
    // Cargo took a slash for "or" before it took SPDX.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    any_of(&mut words) == Some(true) && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

/// `all OR all ...`; `None` if it is no expression.
fn any_of(words: &mut Words<'_>) -> Option<bool> {
    let mut allowed = all_of(words)?;
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all_of(words)?;
    }
    Some(allowed)
}

/// `one AND one ...`
fn all_of(words: &mut Words<'_>) -> Option<bool> {
    let mut allowed = one(words)?;
    while words.next_if_eq(&"AND").is_some() {
        allowed &= one(words)?;
    }
    Some(allowed)
}

/// `( any )`, `licence` or `licence WITH exception`. An exception only permits more.
fn one(words: &mut Words<'_>) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let allowed = any_of(words)?;
        return words.next_if_eq(&")").map(|_| allowed);
    }
    if words.next_if_eq(&"WITH").is_some() {
        words.next()?;
    }
    Some(LICENCES.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = include_str!("../../../deny.toml");

    #[test]
    fn expressions_leave_a_choice_or_not() {
        for allowed in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
            "Unlicense OR MIT",
            "Apache-2.0 AND BSD-3-Clause",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "MIT AND (GPL-3.0-only OR AGPL-3.0-only)",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "MIT WITH",
            "OR",
        ] {
            assert!(!is_allowed(refused), "{refused}");
        }
    }

    fn package(name: &str, version: &str, license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            id: format!("{name}#{version}"),
            name: name.into(),
            version: version.into(),
            license: license.map(Into::into),
            source: source.map(Into::into),
        }
    }

    #[test]
    fn each_rule_that_is_broken_is_told() {
        let mit = Some("MIT");
        let metadata = Metadata {
            packages: vec![
                package("ours", "0.1.0", mit, None),
                package("vm-memory", "0.17.0", mit, Some(SOURCE)),
                package("vm-memory", "0.18.0", mit, Some(SOURCE)),
                package("copyleft", "1.0.0", Some("GPL-3.0-only"), Some(SOURCE)),
                package("silent", "2.0.0", None, Some(SOURCE)),
                package("git", "3.0.0", mit, Some("git+https://example.com/git")),
                package("path", "4.0.0", mit, None),
            ],
            workspace_members: vec!["ours#0.1.0".into()],
        };
        assert_eq!(
            problems(&metadata),
            [
                "the licence of copyleft 1.0.0 is not allowed: GPL-3.0-only",
                "silent 2.0.0 names no licence",
                "git 3.0.0 comes from git+https://example.com/git, not from crates.io",
                "path 4.0.0 comes from a directory, not from crates.io",
                "vm-memory must be there once, not as: 0.17.0, 0.18.0",
            ]
        );
    }

    /// The quoted words of the array `name` in `deny.toml`.
    fn array(name: &str) -> Vec<&str> {
        let (_, rest) = DENY.split_once(&format!("\n{name} = [")).expect("the array");
        let (array, _) = rest.split_once(']').expect("its end");
        array.split('"').skip(1).step_by(2).collect()
    }

    #[test]
    fn cargo_deny_is_told_the_same() {
        assert_eq!(array("allow"), LICENCES);
        assert_eq!(array("targets"), [TARGET]);
        assert_eq!(array("deny"), [SINGLE]);
        let [registry] = array("allow-registry")[..] else {
            panic!("one registry")
        };
        assert_eq!(format!("registry+{registry}"), SOURCE);
    }
}
