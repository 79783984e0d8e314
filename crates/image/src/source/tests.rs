use super::*;

#[test]
fn a_path_may_be_followed_by_a_reference() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["plain.tar", "with:colon.tar"] {
        std::fs::write(at(name), "").unwrap();
    }
    let detect = |name: &str| Source::detect(at(name)).unwrap();
    let cases = [
        ("plain.tar", "plain.tar", None),
        ("plain.tar:v1", "plain.tar", Some("v1")),
        (
            "plain.tar:registry:5000/name:v1",
            "plain.tar",
            Some("registry:5000/name:v1"),
        ),
        ("with:colon.tar", "with:colon.tar", None),
        ("with:colon.tar:v1", "with:colon.tar", Some("v1")),
    ];
    for (text, path, reference) in cases {
        let source = detect(text);
        assert_eq!((source.path(), source.reference()), (&*at(path), reference));
    }
    assert!(matches!(
        Source::detect(at("missing:v1")),
        Err(ImageError::NotFound(_))
    ));
    std::fs::create_dir(at("root")).unwrap();
    assert!(detect("root").is_root_filesystem());
    assert!(
        matches!(Source::detect(at("root:v1")), Err(ImageError::NotFound(_))),
        "has no images to choose from"
    );
    std::fs::write(at("root/oci-layout"), "{}").unwrap();
    assert!(!detect("root").is_root_filesystem());
    assert!(Source::root_filesystem(at("root")).is_root_filesystem());
}

#[test]
fn a_directory_with_the_files_of_an_image_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let is_image = |source: &str| {
        !Source::detect(directory.path().join(source))
            .unwrap()
            .is_root_filesystem()
    };
    for marker in ["oci-layout", "index.json", "manifest.json"] {
        std::fs::create_dir(directory.path().join(marker)).unwrap();
        assert!(!is_image(marker));
        std::fs::write(directory.path().join(marker).join(marker), "{}").unwrap();
        assert!(is_image(marker));
    }
    // The shape of AWS's second ramdisk, with a file that means nothing there.
    std::fs::create_dir_all(directory.path().join("aws/rootfs")).unwrap();
    for name in ["cmd", "manifest.json"] {
        std::fs::write(directory.path().join("aws").join(name), "").unwrap();
    }
    assert!(!is_image("aws"));
}

#[test]
fn the_default_name_is_the_reference_or_the_file() {
    let source = |path: &str, reference: Option<&str>| Source {
        path: path.into(),
        reference: reference.map(str::to_owned),
        kind: Kind::Archive,
    };
    let cases = [
        ("dir/hello.tar", None, "hello"),
        ("hello.tar.gz", None, "hello"),
        ("hello.tgz", None, "hello"),
        ("layout", None, "layout"),
        ("hello.tar", Some("v1"), "hello"),
        ("x.tar", Some("hello:v1"), "hello"),
        (
            "x.tar",
            Some("registry:5000/team/hello:v1"),
            "registry:5000/team/hello",
        ),
        ("x.tar", Some("registry:5000/hello"), "x"),
    ];
    for (path, reference, name) in cases {
        assert_eq!(source(path, reference).name(), name, "{path} {reference:?}");
    }
}

#[test]
fn references_may_leave_out_what_engines_add() {
    for reference in [
        "docker.io/library/hello:latest",
        "library/hello:latest",
        "hello:latest",
        "latest",
        "hello",
    ] {
        assert!(
            is_named("docker.io/library/hello:latest", reference),
            "{reference}"
        );
    }
    for reference in ["ello:latest", "hello:late", "", "docker.io", "test"] {
        assert!(
            !is_named("docker.io/library/hello:latest", reference),
            "{reference}"
        );
    }
}

#[test]
fn an_image_from_elsewhere_is_called_as_the_user_calls_it() {
    let digest = format!("@sha256:{}", "0".repeat(64));
    let file = tempfile::tempfile().unwrap();
    let cases = [
        ("hello", "hello", Some("hello:latest")),
        ("hello:v1", "hello", Some("hello:v1")),
        (
            "localhost:5000/hello",
            "localhost:5000/hello",
            Some("localhost:5000/hello:latest"),
        ),
        (&*format!("team/hello{digest}"), "team/hello", None),
        (
            &*format!("team/hello:v1{digest}"),
            "team/hello",
            Some("team/hello:v1"),
        ),
    ];
    for (text, name, tag) in cases {
        let image = text.parse().unwrap();
        let source = Source::open_archive(file.try_clone().unwrap(), &image, text);
        assert_eq!(
            (source.name().as_str(), source.reference()),
            (name, tag),
            "{text}"
        );
    }
}
