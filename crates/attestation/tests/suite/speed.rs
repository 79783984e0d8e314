//! How fast documents are signed and verified: `cargo xtask bench nsm` measures on this host and in a parent instance, and makes
//! a table of the lines. By itself:
//!
//! ```console
//! $ cargo test --release -p attestation speed -- --ignored --nocapture
//! ```

use std::time::{Duration, Instant};

use attestation::{Policy, verify};

use crate::authority::{Authority, NOW};

/// Calls `work` for three seconds, as often as `BENCH_RUNS` says, and prints how often it returned in one second each time.
fn measure(what: &str, mut work: impl FnMut()) {
    let runs: u32 = std::env::var("BENCH_RUNS").map_or(1, |runs| runs.parse().unwrap());
    let mut per_second = || {
        let begun = Instant::now();
        let mut count = 0_u32;
        while begun.elapsed() < Duration::from_secs(3) {
            work();
            count += 1;
        }
        (f64::from(count) / begun.elapsed().as_secs_f64()).to_string()
    };
    let rates: Vec<String> = (0..runs).map(|_| per_second()).collect();
    println!("rate: {what}: {}", rates.join(" "));
}

#[test]
#[ignore = "a measurement, for release mode and an idle machine"]
fn documents_per_second() {
    let authority = Authority::new(1);
    let content = authority.content();
    let document = authority.write(&content);
    let root = authority.root();
    measure("documents signed", || {
        std::hint::black_box(authority.write(&content));
    });
    measure("documents verified", || {
        verify(&document, &root, NOW, &Policy::default()).unwrap();
    });
}
