//! How fast documents are signed and verified; run with
//! `cargo test --release -p attestation speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use attestation::{Policy, verify};

use crate::authority::{Authority, NOW};

/// Calls `work` for three seconds and prints how often it returned in one.
fn measure(what: &str, mut work: impl FnMut()) {
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < Duration::from_secs(3) {
        work();
        count += 1;
    }
    let per_second = f64::from(count) / begun.elapsed().as_secs_f64();
    println!("{what}: {per_second:.0} per second");
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
    println!("bytes of a document: {}", document.len());
}
