//! Starting the application as a process of its own.
//!
//! What can be wrong with the image shows here: a program, interpreter, directory or user that it does not have. The new
//! process says so on the console and ends with the codes that a shell uses, 127 for a program that was not found and
//! 126 for one that cannot be run.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Gid, Pid, Uid};

use crate::application::Application;
use crate::console;
use crate::error::{self, Error};
use crate::explain;
use crate::lookup::{self, SYSTEM_PATH};
use crate::sys::{self, Fork};
use crate::user::{self, Identity, UserError};

/// Exit code for a program that is not there.
const NOT_FOUND: i32 = 127;
/// Exit code for a program that is there and cannot be run.
const CANNOT_RUN: i32 = 126;

/// Starts the application and returns its process id.
pub(crate) fn start(application: &Application) -> Result<Pid, Error> {
    match sys::fork().map_err(Error::Fork)? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            let refused = become_application(application);
            console::say(&error::chain(&refused));
            std::process::exit(refused.exit_code());
        }
    }
}

/// Why the new process did not become the application.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("cannot prepare the application's process")]
    Process(#[source] io::Error),
    #[error("cannot use the working directory {}", directory.display())]
    Directory { directory: PathBuf, source: io::Error },
    #[error(transparent)]
    User(#[from] UserError),
    #[error("cannot run as user {uid}, group {gid}")]
    Identity { uid: u32, gid: u32, source: io::Error },
    #[error("cannot find `{}` in {SYSTEM_PATH} or in the image's PATH ({image_path})", program.display())]
    NotFound { program: PathBuf, image_path: String },
    #[error("cannot find {}: there is no such file in the image", .0.display())]
    NoSuchFile(PathBuf),
    /// The whole sentence, from [`explain`].
    #[error("{0}")]
    Exec(String),
}

impl Refused {
    fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } | Self::NoSuchFile(_) => NOT_FOUND,
            _ => CANNOT_RUN,
        }
    }
}

/// Turns this process into the application; returns only when that fails.
fn become_application(application: &Application) -> Refused {
    match prepare(application) {
        Ok(mut command) => {
            let error = command.exec();
            Refused::Exec(explain::failed_exec(Path::new(command.get_program()), &error))
        }
        Err(refused) => refused,
    }
}

/// Session, directory, rights, program and environment, in the order in which one needs the other.
fn prepare(application: &Application) -> Result<Command, Refused> {
    let process = |error: rustix::io::Errno| Refused::Process(error.into());
    sys::unblock_signals().map_err(Refused::Process)?;
    // The leader of a new session leads a new process group as well.
    rustix::process::setsid().map_err(process)?;

    enter_directory(&application.directory)?;
    let identity = match &application.user {
        Some(user) => Some(user::resolve(&user.to_string_lossy(), Path::new("/"))?),
        None => None,
    };
    // Last of the steps that need root, but before the program is looked for: the user must be able to reach it.
    if let Some(identity) = &identity {
        assume(identity)?;
    }

    let program = find(&application.program, application.variable("PATH"))?;
    let mut command = Command::new(program);
    command
        .arg0(&application.program)
        .args(&application.arguments)
        .env_clear()
        .envs(application.environment.iter().map(|(name, value)| (name, value)));
    if let Some(identity) = identity
        && application.variable("HOME").is_none()
    {
        command.env("HOME", identity.home);
    }
    Ok(command)
}

/// Changes to the working directory. As in container runtimes, one that the image lacks is made.
fn enter_directory(directory: &Path) -> Result<(), Refused> {
    let failed = |source| Refused::Directory {
        directory: directory.to_path_buf(),
        source,
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    std::env::set_current_dir(directory).map_err(failed)
}

/// Gives up root for the image's user. The console becomes the user's, who could otherwise write to the descriptors that
/// are open but not open `/dev/stdout` anew, as programs do that log to a file name.
fn assume(identity: &Identity) -> Result<(), Refused> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    let failed = |errno: rustix::io::Errno| Refused::Identity {
        uid: identity.uid,
        gid: identity.gid,
        source: errno.into(),
    };
    rustix::fs::fchown(rustix::stdio::stdin(), Some(uid), None).map_err(failed)?;
    // These change the calling thread, which is the only one. The user goes last: it is who may change the groups.
    rustix::thread::set_thread_groups(&groups)
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(failed)
}

fn find(program: &OsStr, image_path: Option<&OsStr>) -> Result<PathBuf, Refused> {
    lookup::find(program, image_path).ok_or_else(|| {
        if program.as_encoded_bytes().contains(&b'/') {
            Refused::NoSuchFile(program.into())
        } else {
            let image_path = image_path
                .unwrap_or(OsStr::new("not set"))
                .to_string_lossy()
                .into_owned();
            Refused::NotFound {
                program: program.into(),
                image_path,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(program: &str, image_path: Option<&str>) -> Refused {
        find(OsStr::new(program), image_path.map(OsStr::new)).unwrap_err()
    }

    #[test]
    fn a_missing_program_is_said_with_where_it_was_looked_for() {
        let refused = refusal("no-such-program", Some("/opt/app/bin"));
        assert_eq!(
            refused.to_string(),
            "cannot find `no-such-program` in /sbin:/usr/sbin:/bin:/usr/bin or in the image's PATH (/opt/app/bin)"
        );
        assert_eq!(refused.exit_code(), 127);

        let refused = refusal("/opt/no-such-program", None);
        assert_eq!(
            refused.to_string(),
            "cannot find /opt/no-such-program: there is no such file in the image"
        );
        assert_eq!(refused.exit_code(), 127);
    }

    #[test]
    fn a_missing_working_directory_is_made() {
        let root = tempfile::tempdir().unwrap();
        let occupied = root.path().join("file");
        std::fs::write(&occupied, "").unwrap();
        let refused = enter_directory(&occupied.join("below")).unwrap_err();
        assert_eq!(
            error::chain(&refused),
            format!(
                "cannot use the working directory {}/below: Not a directory (os error 20)",
                occupied.display()
            )
        );
        assert_eq!(refused.exit_code(), 126);
    }
}
