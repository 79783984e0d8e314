//! The file `xattrs` of the second ramdisk: the extended attributes of the image's files, which cpio has no place for.
//!
//! Init sets them on the files in `rootfs` before it makes that the root. The file is there only if there are any.
//!
//! # Format
//!
//! One line for each attribute, without blank or other lines:
//!
//! ```text
//! PATH NAME VALUE
//! /bin/ping security.capability \x01\x00\x00\x02\x00\x20\x00\x00...
//! /srv user.note two\x20words
//! ```
//!
//! * PATH begins with a slash, which is the image's root. It has no empty component, no `.` and no `..`.
//! * A byte that is no printable ASCII character, a space or a backslash is `\x` and two hexadecimal digits in each of the
//!   three. VALUE may be empty.
//! * Paths are in the order of the archive, names of one path in ascending order of their bytes. A file of several names is
//!   listed by the first.
//! * The file has at most [`LIMIT`] bytes.

use std::io::Write;

use crate::ImageError;
use crate::tree::{Inode, Node, Tree};

/// Most bytes of the file. Images have a few hundred.
const LIMIT: u64 = 16 << 20;
/// Longest name (`XATTR_NAME_MAX`) and longest value (`XATTR_SIZE_MAX`) that Linux has.
const NAME_LIMIT: usize = 255;
const VALUE_LIMIT: usize = 64 << 10;

/// The file, and what could not be put into it.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Empty if there are none.
    pub(crate) file: Vec<u8>,
    /// Path and names of attributes that Linux cannot have, escaped.
    pub(crate) lost: Vec<(String, Vec<String>)>,
}

impl Attributes {
    /// Those of a whole file system.
    pub(crate) fn of(tree: &Tree) -> Result<Self, ImageError> {
        let mut all = Self::default();
        let mut seen = vec![false; tree.inode_count()];
        let mut walk = tree.walk();
        while let Some((path, id)) = walk.next() {
            let inode = tree.inode(id);
            // In a ramdisk each name of a symbolic link is a link of its own.
            let is_again = std::mem::replace(&mut seen[id.index()], true);
            if !is_again || matches!(inode.node, Node::Symlink(_)) {
                all.add(path, inode)?;
            }
        }
        Ok(all)
    }

    fn add(&mut self, path: &[u8], inode: &Inode) -> Result<(), ImageError> {
        let mut sorted: Vec<_> = inode.xattrs.iter().collect();
        sorted.sort();
        let mut lost = Vec::new();
        for (name, value) in sorted {
            if !can_be(name, value) {
                lost.push(name.escape_ascii().to_string());
                continue;
            }
            self.file.push(b'/');
            for (field, end) in [(path, b' '), (name.as_slice(), b' '), (value.as_slice(), b'\n')] {
                escape(field, &mut self.file);
                self.file.push(end);
            }
            if self.file.len() as u64 > LIMIT {
                return Err(ImageError::TooManyAttributes { limit: LIMIT });
            }
        }
        if !lost.is_empty() {
            self.lost.push((format!("/{}", path.escape_ascii()), lost));
        }
        Ok(())
    }
}

fn can_be(name: &[u8], value: &[u8]) -> bool {
    (1..=NAME_LIMIT).contains(&name.len()) && !name.contains(&0) && value.len() <= VALUE_LIMIT
}

fn escape(field: &[u8], output: &mut Vec<u8>) {
    for &byte in field {
        if byte.is_ascii_graphic() && byte != b'\\' {
            output.push(byte);
        } else {
            // Writing to a vector cannot fail.
            let _ = write!(output, "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio;
    use crate::tree::{TreeError, TreePath};

    type Pairs<'a> = &'a [(&'a [u8], &'a [u8])];

    fn insert(tree: &mut Tree, path: &[u8], node: Node, xattrs: Pairs<'_>) -> Result<(), TreeError> {
        let xattrs = xattrs
            .iter()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect();
        let inode = Inode {
            attributes: cpio::Attributes::new(0o755),
            node,
            xattrs,
        };
        tree.insert(&TreePath::parse(path)?, inode).map(|_| ())
    }

    fn directory() -> Node {
        Node::Directory(std::collections::BTreeMap::new())
    }

    fn fifo() -> Node {
        Node::Device(cpio::Device::Fifo)
    }

    #[test]
    fn lines_are_escaped_and_in_one_order() {
        let mut tree = Tree::new(1 << 20);
        insert(&mut tree, b"", directory(), &[(b"trusted.root", b"")]).unwrap();
        let both: Pairs<'_> = &[(b"user.b", b"two words\\\n"), (b"user.a", b"\xff\0")];
        insert(&mut tree, b"sp ace", fifo(), both).unwrap();
        insert(&mut tree, b"a/b", fifo(), &[(b"user.a", b"1")]).unwrap();
        insert(&mut tree, b"plain", fifo(), &[]).unwrap();
        let attributes = Attributes::of(&tree).unwrap();
        assert_eq!(
            attributes.file.escape_ascii().to_string(),
            concat!(
                r"/ trusted.root \n",
                r"/a/b user.a 1\n",
                r"/sp\\x20ace user.a \\xff\\x00\n",
                r"/sp\\x20ace user.b two\\x20words\\x5c\\x0a\n"
            )
        );
        assert!(attributes.lost.is_empty());
    }

    #[test]
    fn a_file_is_listed_by_its_first_name_and_a_link_by_each() {
        let mut tree = Tree::new(1 << 20);
        insert(&mut tree, b"file", fifo(), &[(b"user.a", b"")]).unwrap();
        insert(
            &mut tree,
            b"link",
            Node::Symlink(b"file".to_vec().into()),
            &[(b"trusted.a", b"")],
        )
        .unwrap();
        for (name, target) in [("again", "file"), ("zlink", "link")] {
            let parse = |name: &str| TreePath::parse(name.as_bytes()).unwrap();
            tree.link(&parse(name), &parse(target)).unwrap();
        }
        assert_eq!(
            String::from_utf8(Attributes::of(&tree).unwrap().file).unwrap(),
            "/again user.a \n/link trusted.a \n/zlink trusted.a \n"
        );
    }

    #[test]
    fn what_linux_cannot_have_is_lost_and_told() {
        let mut tree = Tree::new(1 << 20);
        let (long, big) = (vec![b'n'; 256], vec![0; VALUE_LIMIT + 1]);
        let xattrs: Pairs<'_> = &[
            (b"", b""),
            (b"user.nul\0", b""),
            (&long, b""),
            (b"user.big", &big),
            (b"user.a", b""),
        ];
        insert(&mut tree, b"file", fifo(), xattrs).unwrap();
        let attributes = Attributes::of(&tree).unwrap();
        assert_eq!(attributes.file, b"/file user.a \n");
        let names = ["", &"n".repeat(256), "user.big", "user.nul\\x00"].map(str::to_owned);
        assert_eq!(attributes.lost, [("/file".to_owned(), names.to_vec())]);
    }

    #[test]
    fn a_file_beyond_all_reason_is_refused() {
        let mut tree = Tree::new(1 << 30);
        let value = vec![0; VALUE_LIMIT];
        for number in 0..65 {
            let name = format!("file-{number}").into_bytes();
            insert(&mut tree, &name, fifo(), &[(b"user.a", &value)]).unwrap();
        }
        assert!(matches!(
            Attributes::of(&tree),
            Err(ImageError::TooManyAttributes { .. })
        ));
    }
}
