//! Goes through a tree in the order of an archive.

use std::collections::btree_map;

use super::{InodeId, Tree};

/// Gives every name once: a directory before what is in it, names of one directory in ascending order of their bytes.
/// The root comes first, with an empty name. Depth costs heap, not stack.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    tree: &'a Tree,
    open: Vec<OpenDirectory<'a>>,
    path: Vec<u8>,
    started: bool,
}

#[derive(Debug)]
struct OpenDirectory<'a> {
    left: btree_map::Iter<'a, Box<[u8]>, InodeId>,
    /// Length of the directory's own name.
    name_length: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            open: Vec::new(),
            path: Vec::new(),
            started: false,
        }
    }

    /// The next name, without leading slash.
    pub(crate) fn next(&mut self) -> Option<(&[u8], InodeId)> {
        if !self.started {
            self.started = true;
            self.enter(InodeId::ROOT);
            return Some((&self.path, InodeId::ROOT));
        }
        loop {
            let directory = self.open.last_mut()?;
            self.path.truncate(directory.name_length);
            let Some((name, id)) = directory.left.next() else {
                self.open.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            let id = *id;
            self.enter(id);
            return Some((&self.path, id));
        }
    }

    fn enter(&mut self, id: InodeId) {
        if let Some(children) = self.tree.inode(id).children() {
            self.open.push(OpenDirectory {
                left: children.iter(),
                name_length: self.path.len(),
            });
        }
    }
}
