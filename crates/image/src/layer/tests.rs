use std::collections::BTreeMap;
use std::io::Write;

use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::cpio::{Attributes, Device};
use crate::tar_writer::{Extra, TarWriter};

const LIMITS: (u64, u64) = (1 << 30, 1 << 24);

/// A layer with the right digest of its blob.
fn layer(blob: &[u8]) -> Layer {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(blob).unwrap();
    let blob_range = FileRange::new(Arc::new(file), 0, blob.len() as u64);
    Layer {
        blob: blob_range,
        check: Check::Blob(Digest::sha256(blob)),
    }
}

fn read_limited(layer: &Layer, (limit, metadata_limit): (u64, u64)) -> Result<Changes, LayerError> {
    let directory = tempfile::tempdir().unwrap();
    read(
        layer,
        &mut Workspace {
            directory: directory.path(),
            limit,
            left: limit,
            metadata_limit,
        },
    )
}

fn stack(archives: &[Vec<u8>]) -> Result<Tree, LayerError> {
    let mut tree = Tree::new(1 << 24);
    for archive in archives {
        read_limited(&layer(archive), LIMITS)?.apply(&mut tree)?;
    }
    Ok(tree)
}

/// What each name is, and for files the contents.
fn describe(tree: &Tree) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut walk = tree.walk();
    while let Some((name, id)) = walk.next() {
        let what = match &tree.inode(id).node {
            Node::Directory(_) => "directory".to_owned(),
            Node::Symlink(target) => format!("-> {}", target.escape_ascii()),
            Node::Device(device) => format!("{device:?}"),
            Node::File(content) => {
                let mut bytes = Vec::new();
                content.copy_to(&mut bytes, &mut [0; 100]).unwrap();
                bytes.escape_ascii().to_string()
            }
        };
        names.insert(name.escape_ascii().to_string(), what);
    }
    names
}

fn names(tree: &Tree) -> Vec<String> {
    describe(tree)
        .into_keys()
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn a_layer_carries_everything_a_file_has() {
    let extra = Extra {
        mode: 0o6755,
        owner: (1000, 65534),
        mtime: 1_700_000_000,
        pax: &[("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0")],
    };
    let archive = TarWriter::new()
        .entry("bin/ping", b'0', b"", b"ELF", extra)
        .device("dev/null", b'3', 1, 3)
        .device("dev/loop0", b'4', 7, 0)
        .device("pipe", b'6', 0, 0)
        .symlink("bad", "/../../nowhere\n")
        .file(b"\xff\xfe\nname", "odd")
        .finish();
    let tree = stack(&[archive]).unwrap();
    let expected = [
        ("", "directory"),
        ("\\xff\\xfe\\nname", "odd"),
        ("bad", "-> /../../nowhere\\n"),
        ("bin", "directory"),
        ("bin/ping", "ELF"),
        ("dev", "directory"),
        ("dev/loop0", "Block { major: 7, minor: 0 }"),
        ("dev/null", "Character { major: 1, minor: 3 }"),
        ("pipe", "Fifo"),
    ];
    assert_eq!(
        describe(&tree),
        expected
            .map(|(name, what)| (name.to_owned(), what.to_owned()))
            .into()
    );
    let ping = tree.open(&TreePath::parse(b"bin/ping").unwrap()).unwrap();
    assert_eq!(
        ping.attributes,
        Attributes {
            mode: 0o6755,
            uid: 1000,
            gid: 65534,
            mtime: 1_700_000_000
        }
    );
    assert_eq!(
        ping.xattrs,
        [(b"security.capability".to_vec(), b"\x01\0\0\x02\0".to_vec())]
    );
}

#[test]
fn whiteouts_concern_lower_layers_wherever_they_stand() {
    let lower = TarWriter::new()
        .file("a/1", "")
        .file("a/2", "")
        .file("b/1", "")
        .file("b/sub/2", "")
        .file("c", "")
        .finish();
    let entries: [fn(TarWriter) -> TarWriter; 5] = [
        |tar| tar.file("a/.wh.1", ""),
        |tar| tar.file("b/.wh..wh..opq", ""),
        |tar| tar.file("b/new", ""),
        |tar| tar.file(".wh.c", ""),
        |tar| tar.file("c/now/a/directory", ""),
    ];
    for rotation in 0..entries.len() {
        let upper = (0..5)
            .fold(TarWriter::new(), |tar, index| {
                entries[(index + rotation) % 5](tar)
            })
            .finish();
        let tree = stack(&[lower.clone(), upper]).unwrap();
        assert_eq!(
            names(&tree),
            [
                "a",
                "a/2",
                "b",
                "b/new",
                "c",
                "c/now",
                "c/now/a",
                "c/now/a/directory"
            ]
        );
    }
}

#[test]
fn whiteouts_of_nothing_are_no_errors_but_must_name_something() {
    let lower = TarWriter::new().file("a/1", "").finish();
    let upper = TarWriter::new()
        .file(".wh.x", "")
        .file("y/.wh.z", "")
        .file("a/1/.wh.z", "")
        .file("q/.wh..wh..opq", "")
        .file(".wh..wh.plnk/123", "")
        .file(".wh..wh.aufs", "")
        .finish();
    assert_eq!(names(&stack(&[lower, upper]).unwrap()), ["a", "a/1"]);
    for name in [".wh.", "a/.wh..", ".wh..."] {
        let result = stack(&[TarWriter::new().file(name, "").finish()]);
        assert!(
            matches!(
                result,
                Err(LayerError::Entry {
                    source: TreeError::Whiteout,
                    ..
                })
            ),
            "{name}"
        );
    }
}

#[test]
fn files_and_directories_replace_each_other() {
    let directory = |mode| Extra::mode(mode);
    let lower = TarWriter::new()
        .entry("keep", b'5', b"", b"", directory(0o700))
        .file("keep/x", "old")
        .file("was-directory/x", "")
        .file("was-file", "")
        .symlink("was-link", "keep")
        .finish();
    let upper = TarWriter::new()
        .entry("keep", b'5', b"", b"", directory(0o751))
        .file("was-directory", "now a file")
        .directory("was-file")
        .directory("was-link")
        .file("was-link/y", "")
        .entry("./", b'5', b"", b"", directory(0o555))
        .finish();
    let tree = stack(&[lower, upper]).unwrap();
    assert_eq!(
        names(&tree),
        [
            "keep",
            "keep/x",
            "was-directory",
            "was-file",
            "was-link",
            "was-link/y"
        ]
    );
    let mode = |name: &[u8]| {
        tree.open(&TreePath::parse(name).unwrap())
            .unwrap()
            .attributes
            .mode
    };
    assert_eq!((mode(b"keep"), mode(b""), mode(b"keep/x")), (0o751, 0o555, 0o644));
}

#[test]
fn hard_links_reach_into_lower_layers() {
    let lower = TarWriter::new().file("etc/original", "data").finish();
    let upper = TarWriter::new()
        .hard_link("copy", "etc/original")
        .hard_link("second", "/copy")
        .finish();
    let top = TarWriter::new()
        .file("etc/original", "changed")
        .file(".wh.second", "")
        .finish();
    let both = stack(&[lower.clone(), upper.clone()]).unwrap();
    assert_eq!(describe(&both)["second"], "data");
    let tree = stack(&[lower, upper, top]).unwrap();
    assert_eq!(
        (&*describe(&tree)["copy"], &*describe(&tree)["etc/original"]),
        ("data", "changed")
    );
    let dangling = TarWriter::new().hard_link("copy", "missing").finish();
    let error = stack(&[dangling]).unwrap_err();
    assert!(matches!(
        error,
        LayerError::Entry {
            source: TreeError::MissingLinkTarget(_),
            ..
        }
    ));
}

#[test]
fn names_that_escape_are_refused_and_links_cannot_be_used_to_escape() {
    for name in ["../../etc/passwd", "a/../../b"] {
        let error = stack(&[TarWriter::new().file(name, "").finish()]).unwrap_err();
        let LayerError::Entry {
            name: named,
            source: TreeError::Escapes,
        } = error
        else {
            panic!("{error:?}")
        };
        assert_eq!(named, name);
    }
    let hard_link = TarWriter::new().hard_link("shadow", "../../etc/shadow").finish();
    assert!(matches!(
        stack(&[hard_link]),
        Err(LayerError::Entry {
            source: TreeError::Escapes,
            ..
        })
    ));
    let through_link = TarWriter::new()
        .symlink("out", "/../../tmp")
        .file("out/x", "")
        .file("/abs", "")
        .finish();
    assert_eq!(
        names(&stack(&[through_link]).unwrap()),
        ["abs", "out", "tmp", "tmp/x"]
    );
}

#[test]
fn every_compression_gives_the_same_and_contents_are_found_again() {
    let contents = "0123456789".repeat(100_000);
    let archive = TarWriter::new()
        .file("big", &contents)
        .file("small", "s")
        .finish();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive).unwrap();
    // Two members, as parallel compressors write.
    let (first, second) = archive.split_at(700);
    let members: Vec<u8> = [first, second]
        .iter()
        .flat_map(|part| {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        })
        .collect();
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    for blob in [archive, gzip.finish().unwrap(), members, zstd] {
        let tree = stack(&[blob]).unwrap();
        assert_eq!(describe(&tree)["big"], contents);
        assert_eq!(describe(&tree)["small"], "s");
    }
    for (blob, name) in [(&b"BZh91AY"[..], "bzip2"), (b"\xfd7zXZ\0..", "xz")] {
        let error = stack(&[blob.to_vec()]).unwrap_err();
        assert!(matches!(error, LayerError::Compression(found) if found == name));
    }
}

#[test]
fn layers_inside_a_larger_file_are_read_where_they_are() {
    let archive = TarWriter::new().file("x", "inside").finish();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'-'; 1234]).unwrap();
    file.write_all(&archive).unwrap();
    file.write_all(&[b'-'; 99]).unwrap();
    let blob = FileRange::new(Arc::new(file), 0, u64::MAX).slice(1234, archive.len() as u64);
    let layer = Layer {
        blob,
        check: Check::Archive(Digest::sha256(&archive)),
    };
    let mut tree = Tree::new(1 << 20);
    read_limited(&layer, LIMITS).unwrap().apply(&mut tree).unwrap();
    assert_eq!(describe(&tree)["x"], "inside");
}

#[test]
fn damage_is_reported_as_a_wrong_digest() {
    let archive = TarWriter::new().file("x", "contents").finish();
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    for blob in [archive.clone(), zstd] {
        for at in [0, 5, blob.len() / 2, blob.len() - 1] {
            let mut layer = layer(&blob);
            let mut damaged = blob.clone();
            damaged[at] ^= 0x10;
            layer.blob = self::layer(&damaged).blob;
            let error = read_limited(&layer, LIMITS).unwrap_err();
            assert!(matches!(error, LayerError::Digest { .. }), "byte {at}: {error:?}");
        }
    }
    let mut wrong_archive = layer(&zstd::encode_all(&archive[..], 1).unwrap());
    wrong_archive.check = Check::Archive(Digest::sha256(b"other"));
    assert!(matches!(
        read_limited(&wrong_archive, LIMITS),
        Err(LayerError::Digest { .. })
    ));
}

#[test]
fn truncated_archives_are_refused() {
    let archive = TarWriter::new().file("x", "contents").file("y", "more").finish();
    for length in [100, 512, 600, 1023, 1500] {
        let error = stack(&[archive[..length].to_vec()]).unwrap_err();
        assert!(
            matches!(error, LayerError::Tar(TarError::Truncated(_))),
            "{length}: {error:?}"
        );
    }
    assert_eq!(
        names(&stack(&[archive[..2048].to_vec()]).unwrap()),
        ["x", "y"],
        "the end marker may be missing"
    );
    assert!(names(&stack(&[Vec::new()]).unwrap()).is_empty());
}

#[test]
fn bombs_hit_a_limit() {
    let zeros = vec![0; 4 << 20];
    let archive = TarWriter::new().file("bomb", &zeros).finish();
    let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&archive).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 10_000);
    assert!(matches!(
        read_limited(&layer(&bomb), (1 << 20, 1 << 20)),
        Err(LayerError::TooLarge(0x10_0000))
    ));
    let exact = archive.len() as u64;
    assert!(read_limited(&layer(&bomb), (exact, 1 << 20)).is_ok());
    assert!(matches!(
        read_limited(&layer(&bomb), (exact - 1, 1 << 20)),
        Err(LayerError::TooLarge(_))
    ));

    let trailing = [archive, vec![0; 4 << 20]].concat();
    assert!(matches!(
        read_limited(&layer(&trailing), (6 << 20, 1 << 20)),
        Err(LayerError::TooLarge(_))
    ));

    let many = (0..1000)
        .fold(TarWriter::new(), |tar, index| {
            tar.file(format!("file-{index}"), "")
        })
        .finish();
    let error = read_limited(&layer(&many), (1 << 30, 10_000)).unwrap_err();
    assert!(matches!(error, LayerError::TooMuchMetadata(10_000)));
}

#[test]
fn a_hundred_layers() {
    let archives: Vec<Vec<u8>> = (0..100)
        .map(|index| {
            let tar = TarWriter::new()
                .file(format!("layer-{index}"), index.to_string())
                .file("last", index.to_string());
            let tar = if index > 0 {
                tar.file(format!(".wh.layer-{}", index - 1), "")
            } else {
                tar
            };
            tar.finish()
        })
        .collect();
    let tree = stack(&archives).unwrap();
    assert_eq!(names(&tree), ["last", "layer-99"]);
    assert_eq!(describe(&tree)["last"], "99");
}

/// One entry of a generated layer.
#[derive(Clone, Debug)]
enum Op {
    Directory(String),
    File(String, u8),
    Symlink(String, String),
    HardLink(String, String),
    Whiteout(String),
    Opaque(String),
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "c"][..]), 1..4).prop_map(|names| names.join("/"))
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => any_path().prop_map(Op::Directory),
        4 => (any_path(), any::<u8>()).prop_map(|(path, byte)| Op::File(path, byte)),
        2 => (any_path(), any_path(), any::<bool>()).prop_map(|(path, target, is_absolute)| {
            Op::Symlink(path, if is_absolute { format!("/{target}") } else { target })
        }),
        2 => (any_path(), any_path()).prop_map(|(path, target)| Op::HardLink(path, target)),
        2 => any_path().prop_map(Op::Whiteout),
        1 => any_path().prop_map(Op::Opaque),
    ]
}

fn archive(ops: &[Op]) -> Vec<u8> {
    ops.iter()
        .fold(TarWriter::new(), |tar, op| match op {
            Op::Directory(path) => tar.directory(path),
            Op::File(path, byte) => tar.file(path, [*byte]),
            Op::Symlink(path, target) => tar.symlink(path, target),
            Op::HardLink(path, target) => tar.hard_link(path, target),
            Op::Whiteout(path) => match path.rsplit_once('/') {
                Some((parent, name)) => tar.file(format!("{parent}/.wh.{name}"), ""),
                None => tar.file(format!(".wh.{path}"), ""),
            },
            Op::Opaque(path) => tar.file(format!("{path}/.wh..wh..opq"), ""),
        })
        .finish()
}

/// The reference: a flat list of full names. Slow and simple.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<String, ModelNode>);

#[derive(Clone, Debug, PartialEq)]
enum ModelNode {
    Directory,
    /// A number that identifies the file, and its contents.
    File(usize, u8),
    Symlink(String),
}

impl Model {
    /// The name without symbolic links in its directories: the first is replaced by its target, until there is none.
    fn resolve(&self, path: &str) -> Option<String> {
        let mut path = path.to_owned();
        for _ in 0..=40 {
            let link = path
                .match_indices('/')
                .find_map(|(at, _)| match self.0.get(&path[..at]) {
                    Some(ModelNode::Symlink(target)) => Some((at, target.clone())),
                    _ => None,
                });
            let Some((at, target)) = link else {
                return Some(path);
            };
            let start = match (target.strip_prefix('/'), path[..at].rsplit_once('/')) {
                (Some(target), _) => target.to_owned(),
                (None, Some((parent, _))) => format!("{parent}/{target}"),
                (None, None) => target,
            };
            path = format!("{start}{}", &path[at..]);
        }
        None
    }

    fn remove(&mut self, path: &str) {
        self.empty(path);
        self.0.remove(path);
    }

    fn empty(&mut self, path: &str) {
        let below = format!("{path}/");
        self.0.retain(|name, _| !name.starts_with(&below));
    }

    fn make_parents(&mut self, path: &str) -> Option<()> {
        for (at, _) in path.match_indices('/') {
            let node = self
                .0
                .entry(path[..at].to_owned())
                .or_insert(ModelNode::Directory);
            if *node != ModelNode::Directory {
                return None;
            }
        }
        Some(())
    }

    /// `None` when the layer cannot be applied.
    fn apply(&mut self, ops: &[Op], next_file: &mut usize) -> Option<()> {
        for op in ops {
            if let Op::Opaque(path) = op {
                let path = self.resolve(path)?;
                self.empty(&path);
            }
        }
        for op in ops {
            if let Op::Whiteout(path) = op {
                let path = self.resolve(path)?;
                self.remove(&path);
            }
        }
        for op in ops {
            let (path, node) = match op {
                Op::Directory(path) => (path, ModelNode::Directory),
                Op::File(path, byte) => {
                    *next_file += 1;
                    (path, ModelNode::File(*next_file, *byte))
                }
                Op::Symlink(path, target) => (path, ModelNode::Symlink(target.clone())),
                Op::HardLink(path, target) => {
                    let node = self.0.get(&self.resolve(target)?)?.clone();
                    if node == ModelNode::Directory {
                        return None;
                    }
                    (path, node)
                }
                Op::Whiteout(_) | Op::Opaque(_) => continue,
            };
            // Parents that symbolic links point to are made, too, which can bring further links into play.
            let path = self.resolve(path)?;
            self.make_parents(&path)?;
            if !(node == ModelNode::Directory && self.0.get(&path) == Some(&ModelNode::Directory)) {
                self.remove(&path);
                self.0.insert(path, node);
            }
        }
        Some(())
    }

    fn describe(&self) -> BTreeMap<String, String> {
        let mut names: BTreeMap<String, String> = self
            .0
            .iter()
            .map(|(name, node)| {
                let what = match node {
                    ModelNode::Directory => "directory".to_owned(),
                    ModelNode::File(_, byte) => [*byte].escape_ascii().to_string(),
                    ModelNode::Symlink(target) => format!("-> {target}"),
                };
                (name.clone(), what)
            })
            .collect();
        names.insert(String::new(), "directory".to_owned());
        names
    }

    /// Sets of names of one file.
    fn hard_links(&self) -> Vec<Vec<String>> {
        let mut groups: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (name, node) in &self.0 {
            if let ModelNode::File(id, _) = node {
                groups.entry(*id).or_default().push(name.clone());
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort();
        groups
    }
}

fn hard_links(tree: &Tree) -> Vec<Vec<String>> {
    let mut groups: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut walk = tree.walk();
    while let Some((name, id)) = walk.next() {
        if let Node::File(_) = tree.inode(id).node {
            groups
                .entry(id.index())
                .or_default()
                .push(name.escape_ascii().to_string());
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort();
    groups
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn random_stacks_agree_with_the_model(layers in prop::collection::vec(prop::collection::vec(any_op(), 1..8), 1..5)) {
        let mut model = Model::default();
        let mut tree = Tree::new(1 << 24);
        let mut next_file = 0;
        for ops in &layers {
            let expected = model.apply(ops, &mut next_file);
            let applied = read_limited(&layer(&archive(ops)), LIMITS).and_then(|changes| changes.apply(&mut tree));
            prop_assert_eq!(applied.is_ok(), expected.is_some(), "{:?}", applied);
            if expected.is_none() {
                break;
            }
            prop_assert_eq!(describe(&tree), model.describe());
            prop_assert_eq!(hard_links(&tree), model.hard_links());
        }
    }
}

#[test]
fn devices_are_what_they_were() {
    let tree = stack(&[TarWriter::new().device("d", b'3', 4095, 1_048_575).finish()]).unwrap();
    let inode = tree.open(&TreePath::parse(b"d").unwrap()).unwrap();
    assert!(matches!(
        inode.node,
        Node::Device(Device::Character {
            major: 4095,
            minor: 1_048_575
        })
    ));
}
