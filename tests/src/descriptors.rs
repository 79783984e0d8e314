//! How many files, sockets among them, a process may have open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many as the system lets it have: the limit that a process starts with is below what a thousand connections take.
///
/// # Errors
/// If the system does not let it.
pub fn raise_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}
