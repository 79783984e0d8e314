//! The file system of an image, in memory: names, attributes and where the contents are, never the contents.
//!
//! Nothing of an image is unpacked onto the machine that builds. A hostile layer can therefore name `../../etc/passwd`,
//! or put a symbolic link in the way of a later entry, and reach nothing: names are resolved here, within the tree,
//! the way a container engine resolves them within the image's root. Absolute symbolic links and `..` start over at, and
//! stop at, the root of the tree.
//!
//! A hard link is a second name for the same [`InodeId`].
//!
//! Memory is bounded: every inode, name and attribute is charged against a limit given at the start.

mod path;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;

use crate::content::Content;
use crate::cpio::{Attributes, Device};
pub(crate) use path::TreePath;
pub(crate) use walk::Walk;

/// Symbolic links followed in one name, as in Linux (`MAXSYMLINKS`).
const LINK_LIMIT: usize = 40;
/// Bytes charged for an inode besides what it holds.
const INODE_COST: u64 = 192;
/// Attributes of a directory that no layer describes, the same as container engines give it.
const IMPLIED_DIRECTORY: Attributes = Attributes::new(0o755);

/// Why an entry cannot be put into the file system of the image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The name leads out of the root by `..`.
    #[error("the name leads out of the image's root")]
    Escapes,
    /// The name is longer than Linux can open, or contains a NUL.
    #[error("the name is longer than 4095 bytes or contains a NUL")]
    Name,
    /// A directory on the way is a file.
    #[error("`{0}` on the way to it is not a directory")]
    NotADirectory(String),
    /// More than 40 symbolic links on the way.
    #[error("too many symbolic links on the way to it")]
    LinkLoop,
    /// The root of the image is described as something else than a directory.
    #[error("the image's root must be a directory")]
    Root,
    /// A hard link to a name that is not there.
    #[error("it is a hard link to `{0}`, which does not exist")]
    MissingLinkTarget(String),
    /// A hard link to a directory.
    #[error("it is a hard link to `{0}`, which is a directory")]
    LinkToDirectory(String),
    /// A whiteout that names nothing.
    #[error("it is a whiteout that names no file")]
    Whiteout,
    /// Too many entries, or entries with too much metadata.
    #[error("the image has more metadata (names, attributes, entries) than the limit of {0} bytes")]
    TooLarge(u64),
}

/// Identifies a file within one [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InodeId(u32);

impl InodeId {
    const ROOT: Self = Self(0);

    /// Place of the inode in a table of [`Tree::inode_count`] elements.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is in a directory, by name.
pub(crate) type Children = BTreeMap<Box<[u8]>, InodeId>;

/// A file of any kind.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) attributes: Attributes,
    pub(crate) node: Node,
    /// Extended attributes: name and value.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an inode is.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Directory(Children),
    File(Content),
    /// The target is kept as it is and only looked at where it stands in for a directory.
    Symlink(Box<[u8]>),
    Device(Device),
}

impl Inode {
    pub(crate) fn directory(attributes: Attributes) -> Self {
        Self {
            attributes,
            node: Node::Directory(Children::new()),
            xattrs: Vec::new(),
        }
    }

    fn children(&self) -> Option<&Children> {
        match &self.node {
            Node::Directory(children) => Some(children),
            _ => None,
        }
    }

    /// Bytes of memory that it is charged for.
    pub(crate) fn cost(&self) -> u64 {
        let held = match &self.node {
            Node::Directory(_) | Node::Device(_) => 0,
            Node::File(content) => content.cost(),
            Node::Symlink(target) => target.len(),
        };
        let xattrs = self
            .xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len() + 48)
            .sum::<usize>();
        INODE_COST + (held + xattrs) as u64
    }
}

/// A file system.
#[derive(Debug)]
pub(crate) struct Tree {
    inodes: Vec<Inode>,
    limit: u64,
    used: u64,
}

impl Tree {
    /// An empty root, owned by root. `limit` bounds the memory, in bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            inodes: vec![Inode::directory(IMPLIED_DIRECTORY)],
            limit,
            used: 0,
        }
    }

    pub(crate) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[id.index()]
    }

    /// How many inodes there are, counting those that lost their names.
    pub(crate) fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// Every name in the order of an archive.
    pub(crate) fn walk(&self) -> Walk<'_> {
        Walk::new(self)
    }

    /// Puts a file where a container engine would: a directory onto a directory gives it new attributes; anything else
    /// replaces what was there. Missing parents are made.
    pub(crate) fn insert(&mut self, path: &TreePath, inode: Inode) -> Result<InodeId, TreeError> {
        let Some((parent, name)) = path.split() else {
            if inode.children().is_none() {
                return Err(TreeError::Root);
            }
            return self.describe_again(InodeId::ROOT, inode);
        };
        let parent = self.make_parents(parent)?;
        if inode.children().is_some()
            && let Some(existing) = self.child(parent, name)
            && self.inode(existing).children().is_some()
        {
            return self.describe_again(existing, inode);
        }
        let id = self.add(inode)?;
        self.set_child(parent, name, id)?;
        Ok(id)
    }

    /// Gives the file at `target` another name. The last component of `target` is not followed if it is a symbolic link.
    pub(crate) fn link(&mut self, path: &TreePath, target: &TreePath) -> Result<(), TreeError> {
        let missing = || TreeError::MissingLinkTarget(target.to_string());
        let (target_parent, target_name) = target
            .split()
            .ok_or_else(|| TreeError::LinkToDirectory(target.to_string()))?;
        let id = self
            .find(target_parent)?
            .and_then(|directory| self.child(directory, target_name))
            .ok_or_else(missing)?;
        if self.inode(id).children().is_some() {
            return Err(TreeError::LinkToDirectory(target.to_string()));
        }
        let (parent, name) = path.split().ok_or(TreeError::Root)?;
        let parent = self.make_parents(parent)?;
        self.set_child(parent, name, id)
    }

    /// Removes a name and everything below it. Not an error when it is not there.
    pub(crate) fn remove(&mut self, path: &TreePath) -> Result<(), TreeError> {
        let Some((parent, name)) = path.split() else {
            return Ok(());
        };
        if let Some(parent) = self.find(parent)?
            && let Node::Directory(children) = &mut self.inodes[parent.index()].node
        {
            children.remove(name);
        }
        Ok(())
    }

    /// Empties a directory. Not an error when it is not there.
    pub(crate) fn clear(&mut self, path: &TreePath) -> Result<(), TreeError> {
        let id = match path.split() {
            None => Some(InodeId::ROOT),
            Some((parent, name)) => self.find(parent)?.and_then(|parent| self.child(parent, name)),
        };
        if let Some(id) = id
            && let Node::Directory(children) = &mut self.inodes[id.index()].node
        {
            children.clear();
        }
        Ok(())
    }

    /// Whether there is something of that name, if only a symbolic link to nowhere.
    pub(crate) fn has(&self, path: &TreePath) -> Result<bool, TreeError> {
        let Some((parent, name)) = path.split() else {
            return Ok(true);
        };
        Ok(self
            .find(parent)?
            .is_some_and(|parent| self.child(parent, name).is_some()))
    }

    /// The file that a program inside the image would open, with all symbolic links followed.
    pub(crate) fn open(&self, path: &TreePath) -> Option<&Inode> {
        let mut steps = Steps::new(path.as_bytes());
        while let Some(step) = steps.next() {
            let id = self.child(steps.directory(), &step)?;
            match &self.inode(id).node {
                Node::Directory(_) => steps.enter(id),
                Node::Symlink(target) => steps.follow(target).ok()?,
                Node::File(_) | Node::Device(_) => return steps.is_done().then(|| self.inode(id)),
            }
        }
        Some(self.inode(steps.directory()))
    }

    /// The directory at `path`, through symbolic links; `None` when it is missing or no directory.
    fn find(&self, path: &[u8]) -> Result<Option<InodeId>, TreeError> {
        let mut steps = Steps::new(path);
        while let Some(step) = steps.next() {
            let Some(id) = self.child(steps.directory(), &step) else {
                return Ok(None);
            };
            match &self.inode(id).node {
                Node::Directory(_) => steps.enter(id),
                Node::Symlink(target) => steps.follow(target)?,
                Node::File(_) | Node::Device(_) => return Ok(None),
            }
        }
        Ok(Some(steps.directory()))
    }

    /// The directory at `path`, through symbolic links, made with all its parents when missing.
    fn make_parents(&mut self, path: &[u8]) -> Result<InodeId, TreeError> {
        let mut steps = Steps::new(path);
        while let Some(step) = steps.next() {
            let id = if let Some(id) = self.child(steps.directory(), &step) {
                id
            } else {
                let id = self.add(Inode::directory(IMPLIED_DIRECTORY))?;
                self.set_child(steps.directory(), &step, id)?;
                id
            };
            match &self.inode(id).node {
                Node::Directory(_) => steps.enter(id),
                Node::Symlink(target) => steps.follow(target)?,
                Node::File(_) | Node::Device(_) => {
                    return Err(TreeError::NotADirectory(step.escape_ascii().to_string()));
                }
            }
        }
        Ok(steps.directory())
    }

    fn child(&self, directory: InodeId, name: &[u8]) -> Option<InodeId> {
        self.inode(directory).children()?.get(name).copied()
    }

    fn set_child(&mut self, directory: InodeId, name: &[u8], id: InodeId) -> Result<(), TreeError> {
        self.charge(INODE_COST / 2 + name.len() as u64)?;
        if let Node::Directory(children) = &mut self.inodes[directory.index()].node {
            children.insert(name.into(), id);
        }
        Ok(())
    }

    /// Replaces the attributes of a directory, keeping what is in it.
    fn describe_again(&mut self, id: InodeId, new: Inode) -> Result<InodeId, TreeError> {
        self.charge(new.cost())?;
        let inode = &mut self.inodes[id.index()];
        inode.attributes = new.attributes;
        inode.xattrs = new.xattrs;
        Ok(id)
    }

    fn add(&mut self, inode: Inode) -> Result<InodeId, TreeError> {
        self.charge(inode.cost())?;
        let id = u32::try_from(self.inodes.len()).map_err(|_| TreeError::TooLarge(self.limit))?;
        self.inodes.push(inode);
        Ok(InodeId(id))
    }

    fn charge(&mut self, bytes: u64) -> Result<(), TreeError> {
        self.used = self.used.saturating_add(bytes);
        if self.used > self.limit {
            Err(TreeError::TooLarge(self.limit))
        } else {
            Ok(())
        }
    }
}

/// A name being resolved: the directories entered so far and the components still to go.
#[derive(Debug)]
struct Steps {
    entered: Vec<InodeId>,
    /// In reverse order.
    pending: Vec<Box<[u8]>>,
    links_left: usize,
}

impl Steps {
    fn new(path: &[u8]) -> Self {
        let mut steps = Self {
            entered: Vec::new(),
            pending: Vec::new(),
            links_left: LINK_LIMIT,
        };
        steps.push(path);
        steps
    }

    fn push(&mut self, path: &[u8]) {
        let components = path.split(|byte| *byte == b'/').rev();
        self.pending.extend(
            components
                .filter(|part| !part.is_empty() && *part != b".")
                .map(Box::from),
        );
    }

    /// The next component that is to be looked up in [`Self::directory`].
    fn next(&mut self) -> Option<Box<[u8]>> {
        while let Some(component) = self.pending.pop() {
            if *component != *b".." {
                return Some(component);
            }
            self.entered.pop();
        }
        None
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty()
    }

    fn directory(&self) -> InodeId {
        self.entered.last().copied().unwrap_or(InodeId::ROOT)
    }

    fn enter(&mut self, directory: InodeId) {
        self.entered.push(directory);
    }

    /// Continues with the target of a symbolic link found in [`Self::directory`].
    fn follow(&mut self, target: &[u8]) -> Result<(), TreeError> {
        self.links_left = self.links_left.checked_sub(1).ok_or(TreeError::LinkLoop)?;
        if target.starts_with(b"/") {
            self.entered.clear();
        }
        self.push(target);
        Ok(())
    }
}
