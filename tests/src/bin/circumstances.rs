//! Enclave application: prints the circumstances it was started in, one per line, and then does nothing. If there is a
//! directory [`FILES`], what it holds is part of them.

#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use end_to_end_tests::guest::FILES;

/// More than any list of attributes, and any value, of the test images.
const BUFFER: usize = 4096;

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
    println!("capabilities: {}", effective_capabilities());
    for (name, value) in attributes_of_this_program() {
        println!("xattr: {}={}", name.escape_ascii(), value.escape_ascii());
    }
    println!("effective uid: {}", rustix::process::geteuid().as_raw());
    print_files();
    println!("end of circumstances");
    end_to_end_tests::guest::idle();
}

/// The kernel's 16 digits.
fn effective_capabilities() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    digits.unwrap_or("unknown").trim().to_owned()
}

fn attributes_of_this_program() -> Vec<(Vec<u8>, Vec<u8>)> {
    const PROGRAM: &str = "/proc/self/exe";
    let mut names = Vec::with_capacity(BUFFER);
    let listed = rustix::fs::listxattr(PROGRAM, rustix::buffer::spare_capacity(&mut names));
    if let Err(error) = listed {
        println!("xattr: {error}");
    }
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let attributes = names.map(|name| {
        let mut value = Vec::with_capacity(BUFFER);
        let buffer = rustix::buffer::spare_capacity(&mut value);
        match rustix::fs::getxattr(PROGRAM, OsStr::from_bytes(name), buffer) {
            Ok(_) => (name.to_vec(), value),
            Err(error) => (name.to_vec(), error.to_string().into_bytes()),
        }
    });
    attributes.collect()
}

/// What the kernel says of each file in [`FILES`].
fn print_files() {
    for entry in fs::read_dir(FILES).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.display();
        match entry.metadata() {
            Ok(file) => println!(
                "file {name}: mode {:o}, owner {}:{}, device {}:{}, {} links, inode {}",
                file.mode(),
                file.uid(),
                file.gid(),
                rustix::fs::major(file.rdev()),
                rustix::fs::minor(file.rdev()),
                file.nlink(),
                file.ino(),
            ),
            Err(error) => println!("file {name}: {error}"),
        }
    }
}
