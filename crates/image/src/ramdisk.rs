//! The two ramdisks of an enclave, as AWS's tools make them.
//!
//! The first holds what boots: `dev/`, `init` and perhaps `nsm.ko`. It is the same for every image, so that PCR1 is too.
//!
//! The second holds what runs:
//!
//! | name | content |
//! |---|---|
//! | `cmd` | program and arguments, one per line |
//! | `env` | environment, one `NAME=value` per line |
//! | `workdir` | where the program starts; only if the image says |
//! | `user` | as whom it runs, `user[:group]`; only if the image says |
//! | `xattrs` | extended attributes of files below `rootfs`; only if there are any ([`xattrs`] describes it) |
//! | `rootfs/` | the image's file system; `dev`, `proc`, `run`, `sys`, `tmp`, `var` are added where missing |
//!
//! `workdir`, `user` and `xattrs` are not AWS's. Its init leaves them where they are.

use std::io::Write;

use crate::ImageError;
use crate::config::Execution;
use crate::content::{Content, CopyError};
use crate::cpio::{self, Attributes, Entry, Kind};
use crate::kernel::{Blobs, open, read_error};
use crate::tree::{Inode, InodeId, Node, Tree, TreeError, TreePath};
use crate::xattrs;

/// Where the image's file system is in the second ramdisk.
const PREFIX: &[u8] = b"rootfs";
/// Directories that init mounts onto or that programs expect.
const DIRECTORIES: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "var"];
/// Size of copies from layers.
const BUFFER: usize = 256 << 10;

/// Writes the first ramdisk.
pub(crate) fn write_bootstrap(blobs: &Blobs, output: impl Write) -> Result<(), ImageError> {
    let program = Attributes::new(0o755);
    let mut archive = cpio::Writer::new(output);
    archive.directory("dev", program).map_err(ImageError::Ramdisk)?;
    let files = [("init", Some(&blobs.init)), ("nsm.ko", blobs.nsm_module.as_ref())];
    for (name, path) in files.into_iter().filter_map(|(name, path)| Some((name, path?))) {
        let file = open(path)?;
        let size = file.metadata().map_err(read_error(path))?.len();
        archive
            .file_from(name, program, size, file)
            .map_err(ImageError::Ramdisk)?;
    }
    archive.finish().map_err(ImageError::Ramdisk)?;
    Ok(())
}

/// The second ramdisk, ready to be written.
#[derive(Debug)]
pub(crate) struct Customer {
    tree: Tree,
    /// `cmd`, `env` and so on.
    start_files: Vec<(&'static str, Vec<u8>)>,
    /// No file is newer than this.
    newest: u32,
    /// Files with extended attributes that cannot be carried over: name and names of the attributes, escaped.
    pub(crate) lost_attributes: Vec<(String, Vec<String>)>,
}

impl Customer {
    /// Completes the file system. Modification times after `newest` (seconds since 1970) become `newest`.
    pub(crate) fn new(mut tree: Tree, execution: &Execution, newest: u32) -> Result<Self, ImageError> {
        for name in DIRECTORIES {
            add_missing(&mut tree, name).map_err(|source| ImageError::Entry {
                path: name.into(),
                source,
            })?;
        }
        let attributes = xattrs::Attributes::of(&tree)?;
        let mut start_files = start_files(execution)?;
        if !attributes.file.is_empty() {
            start_files.push(("xattrs", attributes.file));
        }
        Ok(Self {
            tree,
            start_files,
            newest,
            lost_attributes: attributes.lost,
        })
    }

    /// Bytes that [`Self::write`] writes.
    pub(crate) fn size(&self) -> Result<u64, ImageError> {
        let mut size = cpio::trailer().len() as u64;
        self.entries(&mut |entry, _| {
            size = size.saturating_add(entry.size());
            Ok(())
        })?;
        Ok(size)
    }

    /// Writes the archive.
    pub(crate) fn write(&self, mut output: impl Write) -> Result<(), ImageError> {
        let mut buffer = vec![0; BUFFER];
        let write_error = |source| ImageError::Eif(eif::WriteError::Output(source));
        self.entries(&mut |entry, body| {
            output
                .write_all(&entry.encode().map_err(ImageError::Ramdisk)?)
                .map_err(write_error)?;
            let size = match body {
                Body::Empty => 0,
                Body::Bytes(bytes) => {
                    output.write_all(bytes).map_err(write_error)?;
                    bytes.len() as u64
                }
                Body::Content(content) => {
                    content
                        .copy_to(&mut output, &mut buffer)
                        .map_err(|error| match error {
                            CopyError::Read(source) => ImageError::Content {
                                name: entry.name.escape_ascii().to_string(),
                                source,
                            },
                            CopyError::Write(source) => write_error(source),
                        })?;
                    content.size()
                }
            };
            output.write_all(cpio::padding_after(size)).map_err(write_error)
        })?;
        output.write_all(&cpio::trailer()).map_err(write_error)
    }

    /// Goes through all entries in the order of the archive.
    fn entries(&self, visit: &mut Visitor<'_>) -> Result<(), ImageError> {
        let mut inodes = Inodes::new(&self.tree);
        for (name, contents) in &self.start_files {
            let entry = Entry {
                name: name.as_bytes(),
                inode: inodes.next_number()?,
                links: 1,
                attributes: Attributes::new(0o644),
                kind: Kind::File {
                    size: contents.len() as u64,
                },
            };
            visit(&entry, Body::Bytes(contents))?;
        }
        let mut name = PREFIX.to_vec();
        let mut walk = self.tree.walk();
        while let Some((path, id)) = walk.next() {
            name.truncate(PREFIX.len());
            if !path.is_empty() {
                name.push(b'/');
                name.extend_from_slice(path);
            }
            let inode = self.tree.inode(id);
            let (number, links, is_last) = inodes.name_of(id, inode)?;
            let (kind, body) = match &inode.node {
                Node::Directory(_) => (Kind::Directory, Body::Empty),
                Node::Symlink(target) => (Kind::Symlink { target }, Body::Empty),
                Node::Device(device) => (Kind::Device(*device), Body::Empty),
                Node::File(content) if is_last => {
                    (Kind::File { size: content.size() }, Body::Content(content))
                }
                Node::File(_) => (Kind::File { size: 0 }, Body::Empty),
            };
            let attributes = Attributes {
                mtime: inode.attributes.mtime.min(self.newest),
                ..inode.attributes
            };
            visit(
                &Entry {
                    name: &name,
                    inode: number,
                    links,
                    attributes,
                    kind,
                },
                body,
            )?;
        }
        Ok(())
    }
}

/// Is called with an entry and with what follows its header.
type Visitor<'a> = dyn FnMut(&Entry<'_>, Body<'_>) -> Result<(), ImageError> + 'a;

/// The contents of an entry.
enum Body<'a> {
    Empty,
    Bytes(&'a [u8]),
    Content(&'a Content),
}

/// Numbers inodes in the order of their first names, and tells the last name of each.
struct Inodes {
    /// For each inode of the tree: names not yet seen, and the number once it has one.
    states: Vec<InodeState>,
    last_number: u32,
}

#[derive(Clone, Copy, Default)]
struct InodeState {
    links: u32,
    seen: u32,
    number: u32,
}

impl Inodes {
    fn new(tree: &Tree) -> Self {
        let mut states = vec![InodeState::default(); tree.inode_count()];
        let mut walk = tree.walk();
        while let Some((_, id)) = walk.next() {
            states[id.index()].links += 1;
        }
        Self {
            states,
            last_number: 0,
        }
    }

    fn next_number(&mut self) -> Result<u32, ImageError> {
        let next = self
            .last_number
            .checked_add(1)
            .ok_or(ImageError::Ramdisk(cpio::Error::TooManyEntries))?;
        self.last_number = next;
        Ok(next)
    }

    /// Inode number, number of links, and whether this is the last name of the file.
    fn name_of(&mut self, id: InodeId, inode: &Inode) -> Result<(u32, u32, bool), ImageError> {
        let mut state = self.states[id.index()];
        // The kernel does not link symbolic links: each name becomes a link of its own.
        if state.links == 1 || matches!(inode.node, Node::Symlink(_)) {
            return Ok((self.next_number()?, 1, true));
        }
        if state.seen == 0 {
            state.number = self.next_number()?;
        }
        state.seen += 1;
        self.states[id.index()] = state;
        Ok((state.number, state.links, state.seen == state.links))
    }
}

fn add_missing(tree: &mut Tree, name: &str) -> Result<(), TreeError> {
    let path = TreePath::parse(name.as_bytes())?;
    if !tree.has(&path)? {
        tree.insert(&path, Inode::directory(Attributes::new(0o755)))?;
    }
    Ok(())
}

/// The files beside `rootfs`.
fn start_files(execution: &Execution) -> Result<Vec<(&'static str, Vec<u8>)>, ImageError> {
    let mut files = vec![
        ("cmd", lines("an argument of the command", &execution.command)?),
        ("env", lines("an environment variable", &execution.environment)?),
    ];
    let optional = [
        ("user", "the user", &execution.user),
        ("workdir", "the working directory", &execution.working_directory),
    ];
    for (name, what, value) in optional {
        if !value.is_empty() {
            files.push((name, lines(what, std::slice::from_ref(value))?));
        }
    }
    Ok(files)
}

fn lines(what: &'static str, items: &[String]) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    for item in items {
        for (byte, character) in [(b'\n', "a newline"), (0, "a NUL")] {
            if item.as_bytes().contains(&byte) {
                let value = item.escape_debug().to_string();
                return Err(ImageError::NotOneLine {
                    what,
                    character,
                    value,
                });
            }
        }
        bytes.extend_from_slice(item.as_bytes());
        bytes.push(b'\n');
    }
    Ok(bytes)
}
