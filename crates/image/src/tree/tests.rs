use super::*;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn symlink(target: &str) -> Inode {
    Inode {
        attributes: IMPLIED_DIRECTORY,
        node: Node::Symlink(target.as_bytes().into()),
        xattrs: Vec::new(),
    }
}

fn fifo() -> Inode {
    Inode {
        attributes: IMPLIED_DIRECTORY,
        node: Node::Device(Device::Fifo),
        xattrs: Vec::new(),
    }
}

fn names(tree: &Tree) -> Vec<String> {
    let mut walk = tree.walk();
    let mut names = Vec::new();
    while let Some((name, _)) = walk.next() {
        names.push(String::from_utf8(name.to_vec()).unwrap());
    }
    names
}

#[test]
fn names_are_cleaned_and_cannot_leave_the_root() {
    for (text, clean) in [
        ("", ""),
        ("/", ""),
        ("./a//b/", "a/b"),
        ("/a/../b", "b"),
        ("a/b/../..", ""),
    ] {
        assert_eq!(path(text).as_bytes(), clean.as_bytes());
    }
    for text in ["..", "../a", "a/../../b", "/../etc/passwd"] {
        assert!(
            matches!(TreePath::parse(text.as_bytes()), Err(TreeError::Escapes)),
            "{text}"
        );
    }
    assert!(matches!(TreePath::parse(b"a\0"), Err(TreeError::Name)));
    assert!(matches!(TreePath::parse(&[b'a'; 4096]), Err(TreeError::Name)));
    assert_eq!(path("a/b").with_name(b"c"), path("a/c"));
    assert_eq!(path("b").with_name(b"c"), path("c"));
    assert_eq!(
        (path("a/b").parent(), path("a").parent(), path("").parent()),
        (path("a"), path(""), path(""))
    );
}

#[test]
fn symbolic_links_on_the_way_are_followed_within_the_tree() {
    let mut tree = Tree::new(1 << 20);
    tree.insert(&path("usr/lib"), Inode::directory(IMPLIED_DIRECTORY))
        .unwrap();
    tree.insert(&path("lib"), symlink("usr/lib")).unwrap();
    tree.insert(&path("up"), symlink("../../../etc")).unwrap();
    tree.insert(&path("absolute"), symlink("/etc/./dir")).unwrap();
    tree.insert(&path("usr/back"), symlink("lib/../../opt")).unwrap();
    for name in ["lib/x", "up/passwd", "absolute/y", "usr/back/z"] {
        tree.insert(&path(name), fifo()).unwrap();
    }
    let expected = [
        "",
        "absolute",
        "etc",
        "etc/dir",
        "etc/dir/y",
        "etc/passwd",
        "lib",
        "opt",
        "opt/z",
        "up",
        "usr",
        "usr/back",
        "usr/lib",
        "usr/lib/x",
    ];
    assert_eq!(names(&tree), expected);
    assert!(matches!(
        tree.open(&path("lib/x")).unwrap().node,
        Node::Device(Device::Fifo)
    ));
    assert!(matches!(tree.open(&path("up")).unwrap().node, Node::Directory(_)));
    assert!(tree.open(&path("lib/x/y")).is_none());
    assert!(tree.open(&path("missing")).is_none());
}

#[test]
fn loops_and_files_on_the_way_are_errors() {
    let mut tree = Tree::new(1 << 20);
    tree.insert(&path("a"), symlink("b")).unwrap();
    tree.insert(&path("b"), symlink("/a")).unwrap();
    tree.insert(&path("bomb"), symlink("bomb/bomb")).unwrap();
    tree.insert(&path("fifo"), fifo()).unwrap();
    for name in ["a/x", "bomb/x"] {
        assert!(
            matches!(tree.insert(&path(name), fifo()), Err(TreeError::LinkLoop)),
            "{name}"
        );
        assert!(matches!(tree.remove(&path(name)), Err(TreeError::LinkLoop)));
        assert!(tree.open(&path(name)).is_none());
    }
    assert!(matches!(
        tree.insert(&path("fifo/x"), fifo()),
        Err(TreeError::NotADirectory(_))
    ));
    assert!(matches!(tree.insert(&path(""), fifo()), Err(TreeError::Root)));
    tree.remove(&path("fifo/x")).unwrap();
}

#[test]
fn hard_links_share_an_inode_and_must_have_a_target() {
    let mut tree = Tree::new(1 << 20);
    let id = tree.insert(&path("dir/one"), fifo()).unwrap();
    tree.insert(&path("link"), symlink("dir")).unwrap();
    tree.link(&path("two"), &path("link/one")).unwrap();
    tree.link(&path("three"), &path("link")).unwrap();
    let mut walk = tree.walk();
    let mut ids = BTreeMap::new();
    while let Some((name, id)) = walk.next() {
        ids.insert(name.to_vec(), id);
    }
    assert_eq!((ids[&b"dir/one"[..]], ids[&b"two"[..]]), (id, id));
    assert_eq!(
        ids[&b"three"[..]],
        ids[&b"link"[..]],
        "a link to the symbolic link, not through it"
    );
    assert!(matches!(
        tree.link(&path("x"), &path("no/one")),
        Err(TreeError::MissingLinkTarget(_))
    ));
    for directory in ["dir", ""] {
        assert!(matches!(
            tree.link(&path("x"), &path(directory)),
            Err(TreeError::LinkToDirectory(_))
        ));
    }
}

#[test]
fn memory_is_bounded() {
    let mut tree = Tree::new(10_000);
    let deep = path(&"d/".repeat(2000));
    assert!(matches!(
        tree.insert(&deep, fifo()),
        Err(TreeError::TooLarge(10_000))
    ));
    assert!(tree.inode_count() < 100);
}

#[test]
fn a_tree_deeper_than_a_path_can_name_is_walked() {
    let mut tree = Tree::new(64 << 20);
    // Each round moves on through a symbolic link, so that the tree gets deeper than any name is long.
    for round in 0..4 {
        let start = if round == 0 {
            String::new()
        } else {
            format!("link{}/", round - 1)
        };
        let deep = format!("{start}{}", "d/".repeat(1900));
        tree.insert(&path(&deep), Inode::directory(IMPLIED_DIRECTORY))
            .unwrap();
        if round < 3 {
            let target = format!("{start}{}", "d/".repeat(1900));
            tree.insert(&path(&format!("link{round}")), symlink(&target))
                .unwrap();
        }
    }
    assert!(names(&tree).iter().map(String::len).max() > Some(8000));
}
