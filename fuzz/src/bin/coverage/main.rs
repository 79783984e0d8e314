//! `FUZZ_TARGET=NAME coverage DIRECTORY...`: gives a target all inputs in these directories and prints how many edges of the code that
//! it is about they reach.
//!
//! ```text
//! crates/eif/src/header.rs 45 of 60, not: 12 40 41
//! crates/eif/src/layout.rs 98 of 101, not: 77
//! edges 143 of 161
//! ```
//!
//! An edge is what libFuzzer counts: a way from one block of a function to the next, after optimisation. Those that are the same place of
//! the source, since a function is compiled for several types or inlined, are one here. Code that no target of the program can reach is often
//! not in it, and then not in these numbers; some that is in it can never be reached, such as what checks an index that is known to be
//! right.

mod counters;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{env, fs};

use addr2line::Loader;
use fuzz_targets::{TARGETS, Target};
use source::Place;

/// Edges of one file.
#[derive(Default)]
struct Edges {
    reached: usize,
    all: usize,
    /// The lines of those that were not reached.
    not_reached: BTreeSet<u32>,
}

fn main() {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("FUZZ_TARGET is no target: {name:?}"));
    let mut reached = vec![false; counters::edges().len()];
    for directory in env::args_os().skip(1) {
        replay(target, Path::new(&directory), &mut reached);
    }
    let files = by_file(target, &reached);
    for (file, edges) in &files {
        let lines: Vec<String> = edges.not_reached.iter().map(u32::to_string).collect();
        println!(
            "{file} {} of {}, not: {}",
            edges.reached,
            edges.all,
            lines.join(" ")
        );
    }
    let sum = |edges: fn(&Edges) -> usize| files.values().map(edges).sum::<usize>();
    println!(
        "edges {} of {}",
        sum(|edges| edges.reached),
        sum(|edges| edges.all)
    );
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
    let is_meant = |place: &Place| {
        let file = Path::new(&place.file);
        target.modules.iter().any(|module| file.starts_with(module))
    };
    let mut places: BTreeMap<Place, bool> = BTreeMap::new();
    for (address, reached) in counters::edges().iter().zip(reached) {
        let place = address.and_then(|address| source::of(&program, address));
        if let Some(place) = place.filter(is_meant) {
            *places.entry(place).or_default() |= reached;
        }
    }
    let mut files: BTreeMap<String, Edges> = BTreeMap::new();
    for (place, reached) in places {
        let line = place.line();
        let edges = files.entry(place.file).or_default();
        edges.all += 1;
        if reached {
            edges.reached += 1;
        } else {
            edges.not_reached.insert(line);
        }
    }
    files
}
