//! Enclave application: prints the circumstances it was started in, one per line, and then does nothing.

#![forbid(unsafe_code)]

use std::env;

fn main() {
    println!("argv: {:?}", env::args().collect::<Vec<_>>());
    for (name, value) in env::vars() {
        println!("env: {name}={value}");
    }
    match env::current_dir() {
        Ok(directory) => println!("cwd: {}", directory.display()),
        Err(error) => println!("cwd: {error}"),
    }
    println!("uid: {}", rustix::process::getuid().as_raw());
    println!("gid: {}", rustix::process::getgid().as_raw());
    println!("end of circumstances");
    end_to_end_tests::guest::idle();
}
