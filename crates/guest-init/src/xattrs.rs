//! Extended attributes of the image's files: capabilities, access control lists, notes of programs.
//!
//! A ramdisk has no place for them, so the image builder lists them in `/xattrs`, if there are any (not an AWS file). One
//! line for each, `PATH NAME VALUE`: the path is absolute in the image, and in all three `\xHH` is a byte, which every byte
//! is that is no printable ASCII character, a space or a backslash. The builder is `crates/image/src/xattrs.rs`.
//!
//! An attribute that cannot be set is said on the console and does not stop the boot: the application may do without it,
//! and can say so itself if it does not.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, XattrFlags};

use crate::console;
use crate::error;

/// Longest line: a path of `PATH_MAX`, a name of `XATTR_NAME_MAX` and a value of `XATTR_SIZE_MAX` bytes, all escaped.
const LINE_LIMIT: u64 = 4 * (4096 + 255 + 65536) + 3;
/// Failures that are said one by one; what fails for one file often fails for all.
const SAID: u64 = 8;

/// Why an attribute is not set.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot {action} the list of extended attributes")]
    List { action: &'static str, source: io::Error },
    #[error("line {0} of the list of extended attributes is no path, name and value")]
    Line(u64),
    #[error("cannot set the extended attribute {name} of {}", path.display())]
    Set {
        name: String,
        path: PathBuf,
        source: io::Error,
    },
}

/// Sets what the file `list` says on the files below `root`, and deletes it. No file: the image has no attributes.
pub(crate) fn restore(list: &Path, root: &Path) {
    let mut failures = 0_u64;
    let mut say = |failure: &Failure| {
        failures += 1;
        if failures <= SAID {
            console::say(&error::chain(failure));
        }
    };
    match File::open(list) {
        Ok(file) => {
            set_all(BufReader::new(file), root, &mut say);
            if let Err(source) = fs::remove_file(list) {
                let action = "delete";
                say(&Failure::List { action, source });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => say(&Failure::List {
            action: "open",
            source,
        }),
    }
    if failures > SAID {
        console::say(&format!("and {} more failures like these", failures - SAID));
    }
}

fn set_all(mut list: impl BufRead, root: &Path, say: &mut dyn FnMut(&Failure)) {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        match list.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(source) => {
                return say(&Failure::List {
                    action: "read",
                    source,
                });
            }
        }
        match line.strip_suffix(b"\n") {
            Some(line) => {
                let set = Attribute::parse(line)
                    .ok_or(Failure::Line(number))
                    .and_then(|attribute| attribute.set(root));
                if let Err(failure) = set {
                    say(&failure);
                }
            }
            // Cut off, or longer than any: what follows cannot be told from it.
            None => return say(&Failure::Line(number)),
        }
    }
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attribute {
    /// Relative to the image's root, which is the empty path itself; without `.` and `..`.
    path: PathBuf,
    name: OsString,
    value: Vec<u8>,
}

impl Attribute {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ').map(unescape);
        let (path, name, value) = (fields.next()??, fields.next()??, fields.next()??);
        let below = path.strip_prefix(b"/")?;
        let is_name = |component: &[u8]| !matches!(component, b"" | b"." | b"..");
        let is_clean = below.is_empty() || below.split(|&byte| byte == b'/').all(is_name);
        if !is_clean || name.is_empty() || fields.next().is_some() {
            return None;
        }
        Some(Self {
            path: OsString::from_vec(below.to_vec()).into(),
            name: OsString::from_vec(name),
            value,
        })
    }

    /// Sets it on a file below `root`, on a symbolic link itself.
    fn set(&self, root: &Path) -> Result<(), Failure> {
        self.reach(root)
            .and_then(|()| {
                let file = root.join(&self.path);
                rustix::fs::lsetxattr(file, &self.name, &self.value, XattrFlags::empty())
            })
            .map_err(|errno| Failure::Set {
                name: self.name.to_string_lossy().into_owned(),
                path: Path::new("/").join(&self.path),
                source: errno.into(),
            })
    }

    /// Fails if a symbolic link is on the way to the file, which could lead out of the image. Nothing can put one there
    /// afterwards: no other process exists yet.
    fn reach(&self, root: &Path) -> rustix::io::Result<()> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, directory, Mode::empty())?;
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(root, parent, directory, Mode::empty(), resolve).map(drop)
    }
}

/// Turns `\xHH` back into bytes; `None` for any other backslash.
fn unescape(field: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        if first != b'\\' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let (digits, after) = after.strip_prefix(b"x")?.split_at_checked(2)?;
        let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
        bytes.push(u8::try_from(digit(0)? << 4 | digit(1)?).ok()?);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn attribute(path: &str, name: &str, value: &[u8]) -> Attribute {
        Attribute {
            path: path.into(),
            name: name.into(),
            value: value.to_vec(),
        }
    }

    /// Sets what a list says and returns what was said, outermost words first.
    fn said(list: &str, root: &Path) -> Vec<String> {
        let mut said = Vec::new();
        set_all(list.as_bytes(), root, &mut |failure| {
            said.push(error::chain(failure));
        });
        said
    }

    fn value_of(file: &Path, name: &str) -> Option<Vec<u8>> {
        let mut value = Vec::with_capacity(100);
        rustix::fs::lgetxattr(file, name, rustix::buffer::spare_capacity(&mut value)).ok()?;
        Some(value)
    }

    #[test]
    fn lines_of_the_builder_are_understood() {
        for (line, expected) in [
            (
                r"/bin/ping security.capability \x01\x00\x00\x02",
                attribute("bin/ping", "security.capability", b"\x01\0\0\x02"),
            ),
            ("/ user.a ", attribute("", "user.a", b"")),
            (
                r"/a\x20b user.\x5c two\x20words",
                attribute("a b", r"user.\", b"two words"),
            ),
        ] {
            assert_eq!(Attribute::parse(line.as_bytes()), Some(expected), "{line}");
        }
    }

    #[test]
    fn other_lines_are_not() {
        for line in [
            "",
            "/a",
            "/a user.a",
            "/a  value",
            "/a user.a value more",
            "a user.a value",
            "/../a user.a value",
            "/a/. user.a value",
            "/a//b user.a value",
            "/a/ user.a value",
            r"/\x2e\x2e/a user.a value",
            r"/a user.a \x0",
            r"/a user.a \y00",
            r"/a user.a \x+1",
        ] {
            assert_eq!(Attribute::parse(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn attributes_are_set_and_the_list_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let (list, root) = (directory.path().join("xattrs"), directory.path().join("rootfs"));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/tool"), "").unwrap();
        fs::write(&list, "/ user.a root\n/bin/tool user.b \\x00\\xff\n").unwrap();

        restore(&list, &root);

        assert_eq!(value_of(&root, "user.a"), Some(b"root".to_vec()));
        assert_eq!(
            value_of(&root.join("bin/tool"), "user.b"),
            Some(b"\0\xff".to_vec())
        );
        assert!(!list.exists());
        // An image without attributes.
        restore(&list, &root);
    }

    #[test]
    fn no_link_leads_out_of_the_image() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        let outside = directory.path().join("outside");
        for directory in [&root, &outside] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(outside.join("file"), "").unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink("../outside/file", root.join("last")).unwrap();

        let list = "/absolute/file user.a 1\n/relative/file user.a 1\n/last user.a 1\n/relative user.a 1\n";
        assert_eq!(said(list, &root).len(), 4);

        for file in [outside.clone(), outside.join("file")] {
            assert_eq!(value_of(&file, "user.a"), None, "{}", file.display());
        }
    }

    #[test]
    fn what_fails_is_said_and_the_rest_is_set() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let list = "/missing user.a 1\nnonsense\n/file unknown.a 1\n/file user.a 1\n/file user.b cut off";
        assert_eq!(
            said(list, root.path()),
            [
                "cannot set the extended attribute user.a of /missing: No such file or directory (os error 2)",
                "line 2 of the list of extended attributes is no path, name and value",
                "cannot set the extended attribute unknown.a of /file: Operation not supported (os error 95)",
                "line 5 of the list of extended attributes is no path, name and value",
            ]
        );
        assert_eq!(value_of(&root.path().join("file"), "user.a"), Some(b"1".to_vec()));
    }

    /// As the builder escapes.
    fn escape(field: &[u8]) -> String {
        let escape = |byte: &u8| match byte {
            b'!'..=b'~' if *byte != b'\\' => char::from(*byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        };
        field.iter().map(escape).collect()
    }

    proptest! {
        #[test]
        fn every_attribute_survives_the_way_through_the_list(
            components in prop::collection::vec(prop::collection::vec(1_u8.., 1..9), 0..4),
            name in prop::collection::vec(any::<u8>(), 1..9),
            value in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let is_name = |component: &Vec<u8>| component != b"." && component != b".." && !component.contains(&b'/');
            prop_assume!(components.iter().all(is_name));
            let path = components.join(&b'/');
            let line = format!("/{} {} {}", escape(&path), escape(&name), escape(&value));
            prop_assert_eq!(Attribute::parse(line.as_bytes()), Some(Attribute {
                path: OsString::from_vec(path).into(),
                name: OsString::from_vec(name),
                value,
            }));
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_no_path_leads_up(
            line in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "[/. ax\\\\2e]{0,30}".prop_map(String::into_bytes),
            ],
        ) {
            if let Some(attribute) = Attribute::parse(&line) {
                prop_assert!(attribute.path.is_relative());
                let mut components = attribute.path.components();
                prop_assert!(components.all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
