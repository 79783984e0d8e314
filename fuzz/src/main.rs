//! `FUZZ_TARGET=NAME fuzz [libFuzzer's arguments]`: one of the targets of `fuzz-targets` under libFuzzer.

#![no_main]

use std::sync::LazyLock;

use fuzz_targets::TARGETS;
use libfuzzer_sys::fuzz_target;

static CHECK: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|target| target.name == name);
    found
        .unwrap_or_else(|| panic!("FUZZ_TARGET is no target: {name:?}"))
        .check
});

fuzz_target!(|input: &[u8]| (*CHECK)(input));
