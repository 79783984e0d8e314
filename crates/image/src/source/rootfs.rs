//! A root file system in a directory.
//!
//! Two shapes are understood: a directory that *is* the root file system, and the shape of AWS's second ramdisk, where it
//! is in `rootfs/` beside the files `cmd` and `env` (and `workdir` and `user`, which are ours), one item per line.
//!
//! Names, owners, modes, links, device nodes and extended attributes are taken over. Times are not: a checkout or a copy
//! has other times each day, and the same files must give the same enclave. Sockets are left out, as by tar: nobody
//! listens at them any more.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::ImageError;
use crate::config::Execution;
use crate::content::{Content, FileOnDisk};
use crate::cpio::{Attributes, Device};
use crate::tree::{Children, Inode, Node, Tree, TreeError, TreePath};

/// Programs that start a system, in the order of preference.
const DEFAULT_COMMANDS: [&str; 2] = ["/sbin/init", "/init"];
/// Extended attributes that a security module of the building machine puts on every file.
const LABELS: [&[u8]; 1] = [b"security.selinux"];
/// Longest list of extended attributes, and longest value, that Linux has.
const XATTR_LIMIT: usize = 64 << 10;
/// Longest start file: no argument list of Linux is longer.
const START_FILE_LIMIT: u64 = 2 << 20;

/// Whether the root file system is in `rootfs/`, beside `cmd`.
pub(super) fn has_aws_shape(path: &Path) -> bool {
    path.join("rootfs").is_dir() && path.join("cmd").is_file()
}

/// Reads the names and attributes of a directory. Every file gets the modification time `mtime`.
pub(crate) fn read(path: &Path, mtime: u32, metadata_limit: u64) -> Result<(Tree, Execution), ImageError> {
    let has_aws_shape = has_aws_shape(path);
    let root = if has_aws_shape {
        path.join("rootfs")
    } else {
        path.to_owned()
    };
    let mut scan = Scan {
        tree: Tree::new(metadata_limit),
        root,
        mtime,
        hard_links: HashMap::new(),
    };
    scan.run()?;
    let execution = if has_aws_shape {
        start_files(path)?
    } else {
        Execution::default()
    };
    Ok((scan.tree, execution))
}

/// The program that a root file system starts with when nobody says so.
pub(crate) fn default_command(tree: &Tree) -> Option<String> {
    let is_program = |command: &&str| {
        TreePath::parse(command.as_bytes())
            .ok()
            .and_then(|path| tree.open(&path))
            .is_some_and(|inode| matches!(inode.node, Node::File(_)) && inode.attributes.mode & 0o111 != 0)
    };
    DEFAULT_COMMANDS.into_iter().find(is_program).map(str::to_owned)
}

/// What the files of AWS's shape say.
fn start_files(directory: &Path) -> Result<Execution, ImageError> {
    let lines = |name: &str| -> Result<Vec<String>, ImageError> {
        let path = directory.join(name);
        let error = |source| ImageError::Read {
            path: path.clone(),
            source,
        };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > START_FILE_LIMIT => {
                return Err(error(io::Error::from(io::ErrorKind::FileTooLarge)));
            }
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(error(source)),
            Ok(_) => {}
        }
        let text = fs::read_to_string(&path).map_err(error)?;
        // Not `lines()`, which would take a carriage return for part of the line's end.
        Ok(text.split_terminator('\n').map(str::to_owned).collect())
    };
    let first = |name: &str| -> Result<String, ImageError> {
        Ok(lines(name)?.into_iter().next().unwrap_or_default())
    };
    Ok(Execution {
        command: lines("cmd")?,
        environment: lines("env")?,
        working_directory: first("workdir")?,
        user: first("user")?,
    })
}

struct Scan {
    tree: Tree,
    root: PathBuf,
    mtime: u32,
    /// The first name of files that have several, by device and inode number.
    hard_links: HashMap<(u64, u64), TreePath>,
}

impl Scan {
    fn run(&mut self) -> Result<(), ImageError> {
        let root = self.root.clone();
        let metadata = fs::metadata(&root).map_err(|source| ImageError::Read { path: root, source })?;
        self.add(Path::new(""), &metadata)?;
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            let path = self.root.join(&directory);
            let error = |source| ImageError::Read {
                path: path.clone(),
                source,
            };
            let mut entries = fs::read_dir(&path)
                .map_err(error)?
                .collect::<Result<Vec<_>, _>>()
                .map_err(error)?;
            // Which name of a file comes first decides nothing, but errors and memory use should be repeatable.
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let name = directory.join(entry.file_name());
                let metadata = entry.metadata().map_err(|source| ImageError::Read {
                    path: self.root.join(&name),
                    source,
                })?;
                self.add(&name, &metadata)?;
                if metadata.is_dir() {
                    directories.push(name);
                }
            }
        }
        Ok(())
    }

    /// Takes over one file. `name` is relative to the root.
    fn add(&mut self, name: &Path, metadata: &Metadata) -> Result<(), ImageError> {
        let file_type = metadata.file_type();
        if file_type.is_socket() {
            // It has no first name in the tree that a second one could be linked to.
            return Ok(());
        }
        let path = self.root.join(name);
        let entry_error = |source: TreeError| ImageError::Entry {
            path: path.clone(),
            source,
        };
        let tree_path = TreePath::parse(name.as_os_str().as_bytes()).map_err(entry_error)?;
        let identity = (metadata.dev(), metadata.ino());
        if metadata.nlink() > 1 && !metadata.is_dir() {
            if let Some(first) = self.hard_links.get(&identity) {
                return self.tree.link(&tree_path, first).map_err(entry_error);
            }
            self.hard_links.insert(identity, tree_path.clone());
        }
        let read_error = |source| ImageError::Read {
            path: path.clone(),
            source,
        };
        let (major, minor) = (
            rustix::fs::major(metadata.rdev()),
            rustix::fs::minor(metadata.rdev()),
        );
        let node = if file_type.is_dir() {
            Node::Directory(Children::new())
        } else if file_type.is_symlink() {
            let target = fs::read_link(&path).map_err(read_error)?;
            Node::Symlink(target.as_os_str().as_bytes().into())
        } else if file_type.is_char_device() {
            Node::Device(Device::Character { major, minor })
        } else if file_type.is_block_device() {
            Node::Device(Device::Block { major, minor })
        } else if file_type.is_fifo() {
            Node::Device(Device::Fifo)
        } else if file_type.is_file() {
            Node::File(Content::File(Box::new(FileOnDisk {
                path: path.clone(),
                size: metadata.len(),
                identity,
            })))
        } else {
            return Ok(());
        };
        let xattrs = extended_attributes(&path).map_err(read_error)?;
        let inode = Inode {
            attributes: self.attributes(metadata),
            node,
            xattrs,
        };
        self.tree
            .insert(&tree_path, inode)
            .map(|_| ())
            .map_err(entry_error)
    }

    fn attributes(&self, metadata: &Metadata) -> Attributes {
        let mode = u16::try_from(metadata.mode() & 0o7777).unwrap_or_default();
        Attributes {
            mode,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: self.mtime,
        }
    }
}

/// The extended attributes of a file, in the order of their names. None where the file system has none.
fn extended_attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = Vec::with_capacity(XATTR_LIMIT);
    match rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let mut attributes = Vec::new();
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && !LABELS.contains(name))
    {
        let mut value = Vec::with_capacity(XATTR_LIMIT);
        match rustix::fs::lgetxattr(
            path,
            OsStr::from_bytes(name),
            rustix::buffer::spare_capacity(&mut value),
        ) {
            Ok(_) => attributes.push((name.to_vec(), value.as_slice().to_vec())),
            Err(rustix::io::Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    attributes.sort();
    Ok(attributes)
}
