//! Starts `enclave-vmm` in the daemon's stead, with the daemon's arguments, and with what each word of the file [`ORDERS`] says:
//!
//! ```text
//! log     the kernel makes system calls that filters forbid: the other layers are alone
//! leak    has open what a careless daemon would have left open: the root directory, a file of root's
//! stop    stops itself first, when it has written its process id to [`FINDINGS`]
//! ```

#![forbid(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

use end_to_end_tests::hostile_vmm::{FINDINGS, ORDERS};
use rustix::io::FdFlags;
use rustix::process::Signal;

const VMM: &str = "/usr/bin/enclave-vmm";

fn main() -> io::Result<()> {
    let orders = fs::read_to_string(ORDERS)?;
    let mut command = Command::new(VMM);
    command.args(env::args().skip(1));
    let mut leaked = Vec::new();
    for order in orders.split_whitespace() {
        match order {
            "log" => {
                command.arg("--log-forbidden-calls");
            }
            "leak" => leaked.extend([leaked_file("/")?, leaked_file("/etc/passwd")?]),
            "stop" => {
                fs::write(FINDINGS, process::id().to_string())?;
                rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
            }
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Err(command.exec())
}

/// One that the next program has open as well.
fn leaked_file(path: &str) -> io::Result<File> {
    let file = File::open(path)?;
    rustix::io::fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file)
}
