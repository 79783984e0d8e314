//! Has the kernel linked for its address, without C library.

#![forbid(unsafe_code)]

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rerun-if-changed=kernel.ld");
    for argument in ["-nostartfiles", "-nostdlib", "-Wl,--build-id=none", "-Wl,-N"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{directory}/kernel.ld");
}
