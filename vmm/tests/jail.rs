//! What a process has lost that went to jail, tried on this machine without being root: layers that only root can have may be missing.
//!
//! The test runs itself once more, since a process stays where it has gone.

#![expect(unsafe_code, reason = "keys are had by raw system calls")]
#![expect(clippy::unwrap_used, reason = "a test that cannot try fails on the spot")]

use std::io::{self, ErrorKind};
use std::process::Command;

use api::sandbox::Layer;
use enclave_vmm::sandbox::jail::Jail;

/// Set for the process that goes to jail.
const GOES: &str = "GOES_TO_JAIL";

/// What that process says at its end.
const END: &str = "got to its end";

const KEY: &std::ffi::CStr = c"enclaved-jail-test";

/// What `key_serial_t` is.
type Serial = i32;

const SESSION: Serial = libc::KEY_SPEC_SESSION_KEYRING;

fn serial(result: libc::c_long) -> io::Result<Serial> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Serial::try_from(result).unwrap())
}

fn join_session() -> io::Result<Serial> {
    let nameless: *const libc::c_char = std::ptr::null();
    // SAFETY: without a name there is nothing that the kernel would read.
    serial(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, nameless) })
}

fn add_key() -> io::Result<Serial> {
    let secret = b"secret";
    // SAFETY: texts end with a zero, and the length is that of the secret.
    serial(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            KEY.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            SESSION,
        )
    })
}

fn find_key() -> io::Result<Serial> {
    // SAFETY: texts end with a zero.
    serial(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_SEARCH,
            SESSION,
            c"user".as_ptr(),
            KEY.as_ptr(),
            0,
        )
    })
}

#[test]
fn the_keys_of_whoever_started_the_daemon_stay_outside() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_one_that_goes_to_jail",
            "--test-threads",
            "1",
            "--nocapture",
        ])
        .env(GOES, "")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains(END), "{child:?}");
}

/// Does nothing unless it is the process that goes to jail.
#[test]
fn the_one_that_goes_to_jail() {
    if std::env::var_os(GOES).is_none() {
        return;
    }
    match join_session() {
        // This machine has no keys.
        Err(error) if [ErrorKind::Unsupported, ErrorKind::PermissionDenied].contains(&error.kind()) => {
            println!("not tried: {error}; {END}");
            return;
        }
        joined => joined.unwrap(),
    };
    let key = add_key().unwrap();
    assert_eq!(find_key().unwrap(), key);

    Jail {
        user: None,
        may_be_missing: Layer::ALL.to_vec(),
    }
    .enter()
    .unwrap();

    let error = find_key().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOKEY), "{error}");
    println!("{END}");
}
