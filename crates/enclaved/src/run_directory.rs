//! The run directory: what the daemon and its enclaves have in the file system.
//!
//! ```text
//! /run/enclaved/                     0755
//!   enclaved.lock                    held (flock) by the one daemon of this directory; names its process
//!   enclaved.sock                    0660 root:ne, where clients connect
//!   enclaved.log                     log of a daemon in the background
//!   ended.jsonl                      the enclaves that have ended lately
//!   consoles/<enclave id>            0600, the kept parts of the consoles of the last few of them
//!   pool.json, pool.lock             what enclaves may have, and who changes or uses that (`allocator::pool`)
//!   <enclave id>/                    0750 root:ne, searchable for the VMM's user (acl(5)); gone when the enclave is
//!     vsock.sock                     0660 root:ne, connect to the enclave: CONNECT <port>
//!     vsock.sock_<port>              made by whoever listens for the enclave on that port; then the VMM's user's
//!     vsock.sock_9000                0600, made by the daemon: the heartbeat; gone after boot
//!     vsock.sock_9001                0600, made by the daemon: how the application ended
//!     enclave.json                   what is known of the enclave, for the next daemon
//!     log.pipe, console.pipe         0600, what the VMM and (debug mode) the guest print
//!     console.history                0600, the kept part of the console
//!     image.json                     what the image says of itself, as the client that started it has put it
//!     outcome                        0600, the VMM's last words
//! ```
//!
//! Members of the group may connect to enclaves but not create listeners: the directory is writable for root alone,
//! since whoever can place a name there chooses what the VMM connects to. Without the group everything is root's.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use api::MAX_IMAGE_METADATA;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::acl;
use crate::ids::EnclaveId;
use crate::vmm_user::VmmUser;

/// The socket to which clients connect.
pub const CLIENT_SOCKET: &str = "enclaved.sock";

/// The log of a daemon in the background.
pub const LOG_FILE: &str = "enclaved.log";

/// The socket through which the parent connects to an enclave.
pub const VSOCK_SOCKET: &str = "vsock.sock";

/// In an enclave's directory: where the daemon connects for the NSM ([`api::nsm`]).
const NSM_SOCKET: &str = "nsm.sock";

/// Daemons that may connect before the VMM looks: one, and its successor.
const NSM_BACKLOG: i32 = 4;

/// Where a VMM writes its last event.
pub const OUTCOME: &str = "outcome";

/// The pipe that is a VMM's standard error.
pub const LOG_PIPE: &str = "log.pipe";

/// The pipe that carries an enclave's console.
pub const CONSOLE_PIPE: &str = "console.pipe";

/// What an enclave's image says of itself.
const IMAGE_METADATA: &str = "image.json";

const LOCK_FILE: &str = "enclaved.lock";

/// Of an enclave's directory, where the group exists.
const ENCLAVE_MODE: u32 = 0o750;

/// The longest path of a Unix socket, without its final zero (`sockaddr_un`).
const MAX_SOCKET_PATH: usize = 107;

/// Why the run directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirectoryError {
    /// Something in it could not be made or changed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another daemon uses it.
    #[error("another enclaved (process {holder}) serves {path}; stop it or choose another --run-directory")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other daemon's process id, as it wrote it down.
        holder: String,
    },
    /// Socket paths inside would exceed the kernel's limit.
    #[error("the run directory's path {path} is too long: at most {limit} bytes leave room for socket names")]
    PathTooLong {
        /// The directory.
        path: PathBuf,
        /// What fits, in bytes.
        limit: usize,
    },
}

/// The run directory, locked by this process. Dropping it removes the client socket that was bound in it.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    group: Option<u32>,
    /// A client socket that a service manager has bound stays: its name belongs to the manager.
    bound_client_socket: bool,
    _lock: File,
}

impl RunDirectory {
    /// Creates `path` if it is missing and locks it. `group` is the group that may use the sockets. A directory that is
    /// there keeps its mode: who made it decides who may look in.
    ///
    /// # Errors
    /// [`RunDirectoryError`].
    pub fn open(path: &Path, group: Option<u32>) -> Result<Self, RunDirectoryError> {
        let longest_name = format!("//{VSOCK_SOCKET}_{}", u32::MAX).len() + EnclaveId::MAX_LEN;
        let limit = MAX_SOCKET_PATH - longest_name;
        if path.as_os_str().len() > limit {
            return Err(RunDirectoryError::PathTooLong {
                path: path.to_owned(),
                limit,
            });
        }
        create(path)?;
        Ok(Self {
            path: path.to_owned(),
            group,
            bound_client_socket: false,
            _lock: lock(path)?,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket for clients. One left by a dead daemon is replaced: the lock proves that no living one uses it.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn bind_client_socket(&mut self) -> Result<UnixListener, RunDirectoryError> {
        let path = self.path.join(CLIENT_SOCKET);
        remove_if_there(&path).map_err(failed("remove the old socket", &path))?;
        self.bound_client_socket = true;
        bind(&path, 0o660, self.group)
    }

    /// The directory of an enclave that an earlier daemon has made.
    pub fn inherited_enclave(&self, id: &EnclaveId) -> EnclaveDirectory {
        EnclaveDirectory {
            path: self.path.join(id.to_string()),
            group: self.group,
            keep: false,
        }
    }

    /// A new directory for one enclave, where `user`, its VMM, may connect to sockets by name.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn create_enclave(
        &self,
        id: &EnclaveId,
        user: Option<VmmUser>,
    ) -> Result<EnclaveDirectory, RunDirectoryError> {
        let path = self.path.join(id.to_string());
        fs::create_dir(&path).map_err(failed("create", &path))?;
        let directory = EnclaveDirectory {
            path,
            group: self.group,
            keep: false,
        };
        share(&directory.path, ENCLAVE_MODE, self.group)?;
        if let Some(user) = user {
            let mode = if self.group.is_some() {
                ENCLAVE_MODE
            } else {
                ENCLAVE_MODE & 0o700
            };
            let path = &directory.path;
            acl::let_user_search(path, mode, user.id()).map_err(failed("let the VMM search", path))?;
        }
        Ok(directory)
    }
}

impl RunDirectory {
    /// Takes away the client socket that was bound here, so that no new client comes.
    pub fn remove_client_socket(&self) {
        if !self.bound_client_socket {
            return;
        }
        let path = self.path.join(CLIENT_SOCKET);
        if let Err(error) = remove_if_there(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove the client socket");
        }
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        self.remove_client_socket();
    }
}

/// One enclave's part of the run directory. Dropping it removes it with all that is inside.
#[derive(Debug)]
pub struct EnclaveDirectory {
    path: PathBuf,
    group: Option<u32>,
    /// Whether it stays when this is dropped.
    keep: bool,
}

impl EnclaveDirectory {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory as a place to look up names, not to read.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn descriptor(&self) -> Result<OwnedFd, RunDirectoryError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(&self.path, flags, Mode::empty())
            .map_err(io::Error::from)
            .map_err(failed("open", &self.path))
    }

    /// The listener through which the parent connects to the enclave.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn bind_vsock(&self) -> Result<UnixListener, RunDirectoryError> {
        bind(&self.path.join(VSOCK_SOCKET), 0o660, self.group)
    }

    /// The listener through which the daemon reaches the enclave's NSM device, a packet socket of root's alone.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn bind_nsm(&self) -> Result<OwnedFd, RunDirectoryError> {
        let path = self.path.join(NSM_SOCKET);
        let bound = packet_socket(SocketFlags::CLOEXEC).and_then(|socket| {
            rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
            rustix::net::listen(&socket, NSM_BACKLOG)?;
            Ok(socket)
        });
        let socket = bound
            .map_err(io::Error::from)
            .map_err(failed("listen on", &path))?;
        set_mode(&path, 0o600)?;
        Ok(socket)
    }

    /// The daemon's end of a connection to that listener, which never blocks.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn connect_nsm(&self) -> Result<OwnedFd, RunDirectoryError> {
        let path = self.path.join(NSM_SOCKET);
        let connected = packet_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).and_then(|socket| {
            rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
            Ok(socket)
        });
        connected
            .map_err(io::Error::from)
            .map_err(failed("connect to", &path))
    }

    /// A listener of the daemon's own for the enclave's connections to vsock `port` of its parent, in the place of the
    /// one that an earlier daemon may have left.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn bind_port(&self, port: u32) -> Result<UnixListener, RunDirectoryError> {
        let path = self.port_path(port);
        remove_if_there(&path).map_err(failed("remove the old socket", &path))?;
        bind(&path, 0o600, None)
    }

    /// Makes a pipe with a name, so that the next daemon can read on where this one stopped.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn create_pipe(&self, name: &str) -> Result<(), RunDirectoryError> {
        let path = self.path.join(name);
        rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(io::Error::from)
            .map_err(failed("create the pipe", &path))
    }

    /// The read end of a pipe, which never blocks.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn pipe_reader(&self, name: &str) -> Result<OwnedFd, RunDirectoryError> {
        self.open_pipe(name, OFlags::RDONLY)
    }

    /// The end of a pipe for the VMM. Writing to it never blocks, and as it is a read end too, never fails because nobody
    /// reads at the moment: what is written stays in the pipe until a daemon comes, as far as there is room.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn pipe_writer(&self, name: &str) -> Result<OwnedFd, RunDirectoryError> {
        self.open_pipe(name, OFlags::RDWR)
    }

    fn open_pipe(&self, name: &str, access: OFlags) -> Result<OwnedFd, RunDirectoryError> {
        let path = self.path.join(name);
        rustix::fs::open(&path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .map_err(failed("open the pipe", &path))
    }

    /// The file for the VMM's last words, new and empty.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn create_outcome(&self) -> Result<OwnedFd, RunDirectoryError> {
        let path = self.path.join(OUTCOME);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io::Error::from)
            .map_err(failed("create", &path))
    }

    /// Keeps what the image says of itself.
    ///
    /// # Errors
    /// [`RunDirectoryError::Io`].
    pub fn write_image_metadata(&self, text: &str) -> Result<(), RunDirectoryError> {
        let path = self.path.join(IMAGE_METADATA);
        fs::write(&path, text).map_err(failed("write", &path))
    }

    /// Lets go of the directory without removing it.
    pub fn leave(mut self) {
        self.keep = true;
    }

    /// Where a listener for `port` is.
    pub fn port_path(&self, port: u32) -> PathBuf {
        self.path.join(format!("{VSOCK_SOCKET}_{port}"))
    }
}

impl Drop for EnclaveDirectory {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the enclave's directory");
        }
    }
}

/// What the image says of itself whose enclave has this `directory`, if it does.
pub fn read_image_metadata(directory: &Path) -> Option<String> {
    let limit = u64::try_from(MAX_IMAGE_METADATA).unwrap_or(u64::MAX);
    let mut text = String::new();
    let file = File::open(directory.join(IMAGE_METADATA)).ok()?;
    file.take(limit).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Makes a run directory that all may look into, unless it is there.
///
/// # Errors
/// [`RunDirectoryError::Io`].
pub(crate) fn create(path: &Path) -> Result<(), RunDirectoryError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(failed("create", path))?;
    set_mode(path, 0o755)
}

/// The number of a group in `group_file` (usually `/etc/group`). Groups of a directory service are not seen there.
pub fn group_id(group_file: &Path, name: &str) -> Option<u32> {
    let text = fs::read_to_string(group_file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

fn lock(directory: &Path) -> Result<File, RunDirectoryError> {
    let path = directory.join(LOCK_FILE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        // Only for the message; the lock itself is what counts.
        let _ = file.read_to_string(&mut holder);
        return Err(RunDirectoryError::InUse {
            path: directory.to_owned(),
            holder: holder.trim().to_owned(),
        });
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| writeln!(file, "{}", std::process::id()));
    written.map_err(failed("write", &path))?;
    Ok(file)
}

fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<UnixListener, RunDirectoryError> {
    let listener = UnixListener::bind(path).map_err(failed("listen on", path))?;
    share(path, mode, group)?;
    Ok(listener)
}

fn packet_socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Gives `path` to the group with these rights; without a group the group's rights are dropped.
fn share(path: &Path, mode: u32, group: Option<u32>) -> Result<(), RunDirectoryError> {
    let Some(group) = group else {
        return set_mode(path, mode & 0o700);
    };
    chown(path, None, Some(group)).map_err(failed("change the group of", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), RunDirectoryError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("change the mode of", path))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirectoryError {
    let path = path.to_owned();
    move |source| RunDirectoryError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::InstanceId;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_who_is_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = RunDirectory::open(directory.path(), None).unwrap();

        let error = RunDirectory::open(directory.path(), None)
            .unwrap_err()
            .to_string();

        let expected = format!("another enclaved (process {}) serves", std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        drop(first);
        assert!(RunDirectory::open(directory.path(), None).is_ok());
    }

    #[test]
    fn a_new_directory_is_open_to_all_and_one_that_is_there_keeps_its_mode() {
        let parent = tempfile::tempdir().unwrap();
        let (new, private) = (parent.path().join("new"), parent.path().join("private"));
        fs::create_dir(&private).unwrap();
        set_mode(&private, 0o1700).unwrap();

        let _both = [&new, &private].map(|path| RunDirectory::open(path, None).unwrap());

        assert_eq!((mode(&new), mode(&private)), (0o755, 0o1700));
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_ours_goes_with_us() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join(CLIENT_SOCKET);
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());

        let mut run = RunDirectory::open(directory.path(), None).unwrap();
        let listener = run.bind_client_socket().unwrap();

        assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
        assert_eq!(mode(&socket), 0o600);
        drop((run, listener));
        assert!(!socket.exists());
    }

    #[test]
    fn an_enclaves_directory_is_closed_to_others_and_removed_with_all_its_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let own_group = rustix::process::getgid().as_raw();
        let run = RunDirectory::open(directory.path(), Some(own_group)).unwrap();
        let id = EnclaveId::generate(&InstanceId::read(Path::new("/nonexistent")));

        let enclave = run.create_enclave(&id, None).unwrap();
        let _vsock = enclave.bind_vsock().unwrap();
        let _heartbeat = enclave.bind_port(9000).unwrap();
        let path = enclave.path().to_owned();

        assert_eq!(mode(&path), 0o750);
        assert_eq!(mode(&path.join("vsock.sock")), 0o660);
        assert_eq!(mode(&path.join("vsock.sock_9000")), 0o600);
        drop(enclave);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_without_room_for_socket_names_is_refused_at_start() {
        let error =
            RunDirectory::open(Path::new(&format!("/nonexistent/{}", "d".repeat(60))), None).unwrap_err();
        assert!(matches!(error, RunDirectoryError::PathTooLong { .. }), "{error}");
    }

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "root:x:0:\nnew:x:7:a,b\nbroken\nne:x:991:alice\n").unwrap();

        assert_eq!(group_id(file.path(), "ne"), Some(991));
        assert_eq!(group_id(file.path(), "broken"), None);
        assert_eq!(group_id(file.path(), "n"), None);
        assert_eq!(group_id(Path::new("/nonexistent"), "ne"), None);
    }
}
