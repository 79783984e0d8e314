//! Enclave application: prints the circumstances it was started in, one per line, and then does nothing. If there is a
//! directory [`FILES`](end_to_end_tests::guest::FILES), what it holds is part of them.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;

use end_to_end_tests::guest::FILES;

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
    println!("effective uid: {}", rustix::process::geteuid().as_raw());
    print_files();
    println!("end of circumstances");
    end_to_end_tests::guest::idle();
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
