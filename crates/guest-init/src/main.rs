//! `/init`: PID 1 of an enclave.
//!
//! It follows the protocol of the AWS bootstrap init, so that the parent instance sees no difference:
//!
//! 1. Block all signals, mount `/dev`, open the console.
//! 2. Load `nsm.ko` if the ramdisk brings one; a kernel with the driver built in brings none.
//! 3. Heartbeat: tell the parent over vsock that the enclave has booted, and wait for its answer.
//! 4. Take the application's command line and environment from `/cmd` and `/env`.
//! 5. Complete `/rootfs`, the image's file system, make it the root, and mount what programs expect in it.
//! 6. Start the application, reap every process that dies, and reboot when the application has ended. The machine has
//!    nothing to reboot into: the reset ends the enclave.
//!
//! Three things go beyond AWS. The image's working directory, user and extended attributes are honoured, from the optional
//! files `/workdir`, `/user` and `/xattrs`. Whatever ends the enclave is said on the console, in words, as its last line.
//! And the parent, if it listens, is told how the application ended.
//!
//! When a step fails, AWS's init exits, the kernel panics, and the enclave is gone 30 seconds later. This one says what
//! failed and reboots at once: the parent learns of it at once, and the reason is not buried under a kernel trace.
//!
//! The program has one thread and is linked statically, because the ramdisk holds no shared library.

mod application;
mod console;
mod error;
mod explain;
mod heartbeat;
mod launch;
mod lookup;
mod mounts;
mod nsm_driver;
mod reap;
mod report;
mod sys;
mod user;
mod xattrs;

use std::path::Path;
use std::process::ExitCode;

use rustix::system::{RebootCommand, reboot};

use crate::application::Application;
use crate::error::Error;
use crate::reap::Ended;

/// Where the customer ramdisk holds the image's file system.
const IMAGE_ROOT: &str = "/rootfs";

fn main() -> ExitCode {
    // Outside an enclave the last step would reboot somebody's machine.
    if !rustix::process::getpid().is_init() {
        console::say("this is PID 1 of an enclave; it does nothing in any other place");
        return ExitCode::FAILURE;
    }

    match run() {
        Ok(ended) => {
            console::say(&format!("the application {ended}; the enclave ends"));
            report::tell_parent(ended);
        }
        Err(error) => console::say(&format!("{}; the enclave ends", error::chain(&error))),
    }
    console::drain();

    // Returning makes the kernel panic, which ends the enclave too, so it is the right answer to a reboot that failed.
    match reboot(RebootCommand::Restart) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errno) => {
            console::say(&format!("cannot reboot: {errno}"));
            ExitCode::FAILURE
        }
    }
}

/// All of the enclave's life, up to the end of its application.
fn run() -> Result<Ended, Error> {
    // The application's process unblocks them. PID 1 takes no signals: it learns of deaths by waiting.
    sys::block_signals().map_err(Error::Signals)?;
    mounts::early_dev()?;
    console::open()?;
    nsm_driver::load_if_present(Path::new("nsm.ko"))?;

    heartbeat::exchange()?;

    let application = Application::take_from(Path::new("/"))?;
    xattrs::restore(Path::new("/xattrs"), Path::new(IMAGE_ROOT));
    mounts::enter_root(Path::new(IMAGE_ROOT))?;
    mounts::populate_root()?;

    let pid = launch::start(&application)?;
    reap::until_ended(pid)
}
