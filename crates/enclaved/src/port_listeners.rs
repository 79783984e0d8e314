//! Listeners on the parent for an enclave's connections, given to the user that its VMM runs as.
//!
//! Whoever serves port P of the parent binds `vsock.sock_P` in the enclave's directory, where only root can. To connect, the
//! VMM needs the right to write to that socket. So each such socket gets the VMM's user as its owner as soon as it appears
//! (inotify(7)). Whoever made it notices nothing, since root's rights do not depend on owners. Until then the kernel refuses
//! the VMM's connections with EACCES, and it tries again for a while (`vmm/src/vsock/unix/connector.rs`).
//!
//! A listener that appears while no daemon lives is found by the next one.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, FileType, inotify};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use crate::run_directory::{EnclaveDirectory, VSOCK_SOCKET};
use crate::vmm_user::VmmUser;

/// Room for some dozens of events, in bytes.
const EVENTS: usize = 4096;

/// The task that watches one enclave's directory. Dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct PortListeners(JoinHandle<()>);

impl PortListeners {
    /// Gives the listeners that are in `directory` to `user`, and those that come. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// If the directory cannot be watched or read.
    pub(crate) fn watch(directory: &EnclaveDirectory, user: VmmUser) -> io::Result<Self> {
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let events = inotify::init(flags)?;
        // And changes of who owns them: a program may give its socket to a user of its own once it has bound it.
        let arrivals =
            inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ATTRIB;
        inotify::add_watch(&events, directory.path(), arrivals | inotify::WatchFlags::ONLYDIR)?;
        let arrivals = Arrivals {
            events: UnixStream::from_std(events.into())?,
            place: Place {
                directory: directory.descriptor().map_err(io::Error::other)?,
                path: directory.path().to_owned(),
                user,
            },
        };
        arrivals.place.give_all()?;
        Ok(Self(tokio::spawn(arrivals.give_each())))
    }
}

impl Drop for PortListeners {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What comes into a directory.
struct Arrivals {
    /// An inotify descriptor. The type is that of a stream, but nothing is asked of it that differs.
    events: UnixStream,
    place: Place,
}

impl Arrivals {
    async fn give_each(self) {
        let give = || self.place.give_those_of(&self.events);
        let Err(error) = self.events.async_io(Interest::READABLE, give).await;
        let path = self.place.path.display();
        tracing::error!(%path, %error, "new listeners in an enclave's directory are not seen any more");
    }
}

/// A directory of listeners, and who is to have them.
struct Place {
    directory: OwnedFd,
    path: PathBuf,
    user: VmmUser,
}

impl Place {
    /// Takes all events that are there. Ends with `WouldBlock`, or what else went wrong.
    fn give_those_of(&self, events: impl AsFd) -> io::Result<Infallible> {
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let mut events = inotify::Reader::new(events, &mut room);
        loop {
            let event = events.next()?;
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                self.give_all()?;
            } else if let Some(name) = event.file_name() {
                self.give_unless_gone(&name.to_string_lossy());
            }
        }
    }

    fn give_all(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            self.give_unless_gone(&entry?.file_name().to_string_lossy());
        }
        Ok(())
    }

    fn give_unless_gone(&self, name: &str) {
        match self.give(name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, name, %error, "the VMM cannot be given a listener");
            }
        }
    }

    /// Only sockets, and no links: what those point to is none of the enclave's.
    fn give(&self, name: &str) -> Result<(), Errno> {
        if !is_of_a_port(name) {
            return Ok(());
        }
        let status = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_socket = FileType::from_raw_mode(status.st_mode) == FileType::Socket;
        if !is_socket || status.st_uid == self.user.id() {
            return Ok(());
        }
        let owner = Some(self.user.uid());
        rustix::fs::chownat(&self.directory, name, owner, None, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// Whether a listener for some port has this name.
fn is_of_a_port(name: &str) -> bool {
    let port = name
        .strip_prefix(VSOCK_SOCKET)
        .and_then(|rest| rest.strip_prefix('_'));
    port.is_some_and(|port| port.parse::<u32>().is_ok_and(|number| number.to_string() == port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    use crate::run_directory::RunDirectory;
    use crate::vmm_user::VmmUsers;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    /// As a program would that gives its socket to somebody else.
    fn chownat_root(path: &Path) {
        std::os::unix::fs::chown(path, Some(0), None).unwrap();
    }

    async fn owned_by(user: VmmUser, path: &Path) {
        let wait = async {
            while owner(path) != user.id() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    }

    #[tokio::test]
    async fn listeners_old_and_new_are_given_to_the_vmm_and_nothing_else_is() {
        let user = VmmUsers::from(7000).of(&[1]).expect("tests run as root");
        let run = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(run.path(), None).unwrap();
        let enclave = run.create_enclave(&"i-0-enc1".parse().unwrap(), None).unwrap();
        let path = |name: &str| enclave.path().join(name);
        let others = [
            "vsock.sock",
            "vsock.sock_",
            "vsock.sock_07",
            "vsock.sock_4294967296",
            "x",
        ];
        let mut sockets = vec![UnixListener::bind(path("vsock.sock_1")).unwrap()];

        let watch = PortListeners::watch(&enclave, user).unwrap();

        assert_eq!(owner(&path("vsock.sock_1")), user.id());
        sockets.extend(others.map(|name| UnixListener::bind(path(name)).unwrap()));
        fs::write(path("vsock.sock_2"), "a file").unwrap();
        symlink("/dev/null", path("vsock.sock_3")).unwrap();
        sockets.push(UnixListener::bind(path("vsock.sock_4294967295")).unwrap());
        owned_by(user, &path("vsock.sock_4294967295")).await;
        sockets.push(UnixListener::bind(path("moved")).unwrap());
        fs::rename(path("moved"), path("vsock.sock_5")).unwrap();
        owned_by(user, &path("vsock.sock_5")).await;
        chownat_root(&path("vsock.sock_5"));
        owned_by(user, &path("vsock.sock_5")).await;
        for name in others.iter().chain(&["vsock.sock_2", "vsock.sock_3"]) {
            assert_eq!(owner(&path(name)), 0, "{name}");
        }
        assert_eq!(owner(Path::new("/dev/null")), 0);
        drop(watch);
    }

    /// More than the kernel keeps events of (fs.inotify.max_queued_events, 16384 by default) come before any is read.
    #[tokio::test]
    async fn a_flood_of_arrivals_loses_none() {
        let user = VmmUsers::from(7000).of(&[1]).expect("tests run as root");
        let run = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(run.path(), None).unwrap();
        let enclave = run.create_enclave(&"i-0-enc1".parse().unwrap(), None).unwrap();
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: u32 = limit.trim().parse().unwrap();
        let _watch = PortListeners::watch(&enclave, user).unwrap();

        // Nothing is awaited in between, and the task is on this thread.
        for number in 0..=limit {
            fs::write(enclave.path().join(number.to_string()), "").unwrap();
        }
        let path = enclave.path().join("vsock.sock_1");
        let _listener = UnixListener::bind(&path).unwrap();

        owned_by(user, &path).await;
    }
}
