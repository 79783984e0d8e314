//! `FUZZ_TARGET=NAME coverage DIRECTORY...`: gives a target all inputs in these directories and prints how many edges of the code that
//! it is about they reach.
//!
//! ```text
//! crates/eif/src/header.rs 45 of 60
//! crates/eif/src/layout.rs 98 of 101
//! edges 143 of 161
//! ```
//!
//! An edge is what libFuzzer counts: a way from one block of a function to the next, after optimisation, for each type that the
//! function was compiled for. Code that no target of the program can reach is often not in it, and then not in these numbers.

mod counters;
mod source;

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use addr2line::Loader;
use fuzz_targets::{TARGETS, Target};

/// Edges reached, and all.
type Edges = (usize, usize);

fn main() {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("FUZZ_TARGET is no target: {name:?}"));
    let mut reached = vec![false; counters::edges().len()];
    for directory in env::args_os().skip(1) {
        replay(target, Path::new(&directory), &mut reached);
    }
    let files = by_file(target, &reached);
    for (file, (reached, all)) in &files {
        println!("{file} {reached} of {all}");
    }
    let sum = |edges: fn(&Edges) -> usize| files.values().map(edges).sum::<usize>();
    println!("edges {} of {}", sum(|edges| edges.0), sum(|edges| edges.1));
}

fn replay(target: &Target, directory: &Path, reached: &mut [bool]) {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let input = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (target.check)(&input);
        // After each input, since a counter that runs over is at zero again.
        counters::take(reached);
    }
}

fn by_file(target: &Target, reached: &[bool]) -> BTreeMap<String, Edges> {
    let program = Loader::new("/proc/self/exe").expect("this program has line tables");
    let mut files: BTreeMap<String, Edges> = BTreeMap::new();
    for (address, reached) in counters::edges().iter().zip(reached) {
        let Some(file) = source::of(&program, *address) else {
            continue;
        };
        if target
            .modules
            .iter()
            .any(|module| Path::new(&file).starts_with(module))
        {
            let edges = files.entry(file).or_default();
            edges.0 += usize::from(*reached);
            edges.1 += 1;
        }
    }
    files
}
