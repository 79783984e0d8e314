//! What is in an EIF, and that it is the same each time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use eif::SectionKind;
use image::{BuildOptions, Execution, ImageError, Progress, Source, build};
use serde_json::{Value, json};

use crate::bench::{Bench, Built, listing, sample, write_root};
use crate::images::{Image, archive, digest, gzip, write_directory};
use crate::tar_writer::{Extra, TarWriter};

#[test]
fn an_image_becomes_the_ramdisks_that_aws_makes() {
    let bench = Bench::new();
    write_directory(&sample().layout(), &bench.path("layout"));
    let built = bench.build("layout").unwrap();

    let expected_bootstrap = BTreeMap::from([
        ("dev".into(), "755 directory".into()),
        ("init".into(), "755 \x7fELF init".into()),
    ]);
    assert_eq!(listing(built.unpack(0).path()), expected_bootstrap);

    let customer = built.unpack(1);
    let expected = [
        ("cmd", "644 /bin/app\n--flag\ntwo words\n\n"),
        ("env", "644 PATH=/bin\nEMPTY=\n"),
        ("user", "644 1000:1000\n"),
        ("workdir", "644 /srv\n"),
        ("rootfs", "755 directory"),
        ("rootfs/bin", "755 directory"),
        ("rootfs/bin/app", "4755 application"),
        ("rootfs/dev", "755 directory"),
        ("rootfs/dev/null", "600 "),
        ("rootfs/etc", "755 directory"),
        ("rootfs/proc", "755 directory"),
        ("rootfs/run", "755 directory"),
        ("rootfs/sys", "755 directory"),
        ("rootfs/tmp", "755 directory"),
        ("rootfs/usr", "755 directory"),
        ("rootfs/usr/bin", "755 directory"),
        ("rootfs/usr/bin/app", "4755 application"),
        ("rootfs/var", "777 -> run"),
    ];
    assert_eq!(
        listing(customer.path()),
        expected.map(|(name, what)| (name.into(), what.into())).into()
    );
    let app = customer.path().join("rootfs/bin/app").metadata().unwrap();
    let linked = customer.path().join("rootfs/usr/bin/app").metadata().unwrap();
    assert_eq!(
        (app.uid(), app.gid(), app.mtime(), app.nlink()),
        (12, 34, 1_600_000_000, 2)
    );
    assert_eq!(app.ino(), linked.ino());
    assert_eq!(built.report.warnings, []);
}

#[test]
fn extended_attributes_are_in_a_file_of_their_own() {
    let bench = Bench::new();
    let xattrs = Extra {
        pax: &[
            ("SCHILY.xattr.user.note", b"two words"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
        ],
        ..Extra::mode(0o755)
    };
    let layer = TarWriter::new().entry("bin/ping", b'0', b"", b"", xattrs);
    let layer = layer.hard_link("usr/bin/ping", "bin/ping").finish();
    write_directory(&Image::new(vec![layer]).layout(), &bench.path("layout"));
    write_root(&bench.path("root"));
    let set = |name: &str, value: &[u8]| {
        let file = bench.path("root/sbin/init");
        rustix::fs::setxattr(file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    let without = bench.build("root").unwrap();
    assert!(!without.unpack(1).path().join("xattrs").exists());
    set("user.second", b"");
    set("user.first", b"x");

    for (source, expected) in [
        (
            "layout",
            "/bin/ping security.capability \\x01\\x00\\x00\\x02\n/bin/ping user.note two\\x20words\n",
        ),
        ("root", "/sbin/init user.first x\n/sbin/init user.second \n"),
    ] {
        let built = bench.build(source).unwrap();
        assert_eq!(built.report.warnings, []);
        let listed = fs::read_to_string(built.unpack(1).path().join("xattrs")).unwrap();
        assert_eq!(listed, expected);
        assert!(
            built.report.measurements != without.report.measurements,
            "they are measured"
        );
        assert!(built.eif == bench.build(source).unwrap().eif);
    }
}

#[test]
fn the_eif_holds_kernel_command_line_and_metadata() {
    let bench = Bench::new();
    let image = sample();
    bench.file("hello.tar.gz", &gzip(&archive(&image.docker_save())));
    let custom = json!({"team": "blue"});
    let options = BuildOptions {
        custom_metadata: Some(custom.clone()),
        ..BuildOptions::default()
    };
    let built = bench.build_with("hello.tar.gz", &options).unwrap();

    assert_eq!(built.sections(SectionKind::Kernel), [b"kernel"]);
    assert_eq!(built.sections(SectionKind::Cmdline), [b"console=ttyS0 reboot=k"]);
    let id = digest(&image.config_bytes());
    let metadata = built.metadata();
    let expected = json!({
        "ImageName": "hello",
        "ImageVersion": id.trim_start_matches("sha256:"),
        "BuildMetadata": {
            "BuildTime": "2024-02-29T12:00:00.5Z",
            "BuildTool": "nitro-cli",
            "BuildToolVersion": env!("CARGO_PKG_VERSION"),
            "OperatingSystem": "Linux",
            "KernelVersion": "6.12.30",
        },
        "DockerInfo": {
            "Id": id,
            "RepoTags": [],
            "RepoDigests": [],
            "Created": "2024-02-29T12:00:00.5Z",
            "Author": "someone",
            "Config": image.config["config"],
            "Architecture": "amd64",
            "Variant": null,
            "Os": "linux",
            "RootFS": {"Type": "layers", "Layers": image.layers.iter().map(|layer| digest(layer)).collect::<Vec<_>>()},
        },
        "CustomMetadata": custom,
    });
    assert_eq!(metadata, expected);

    let named = bench.build_with("hello.tar.gz:library/hello:v1", &options);
    assert!(matches!(named, Err(ImageError::NoSuchReference { .. })));
    let named = bench
        .build_with("hello.tar.gz:hello:v1", &options)
        .unwrap()
        .metadata();
    assert_eq!(
        (&named["ImageName"], &named["DockerInfo"]["RepoTags"]),
        (&json!("hello"), &json!(["hello:v1"]))
    );
}

#[test]
fn reported_measurements_are_those_of_the_file() {
    let bench = Bench::new();
    write_directory(&sample().layout(), &bench.path("layout"));
    let built = bench.build("layout").unwrap();
    let inspection = eif::inspect(&&built.eif[..], built.eif.len() as u64).unwrap();
    assert_eq!(inspection.measurements, built.report.measurements);
    assert!(inspection.crc_ok);

    let mut other = sample();
    other.layers.pop();
    write_directory(&other.layout(), &bench.path("other"));
    let other = bench.build("other").unwrap().report.measurements;
    assert_eq!(
        other.pcr1, built.report.measurements.pcr1,
        "the first ramdisk does not depend on the image"
    );
    assert_ne!(other.pcr2, built.report.measurements.pcr2);
}

#[test]
fn a_directory_is_taken_as_a_root_file_system() {
    let bench = Bench::new();
    write_root(&bench.path("root"));
    let built = bench.build("root").unwrap();
    let customer = built.unpack(1);
    let at = |name: &str| customer.path().join(name).symlink_metadata().unwrap();
    assert_eq!(
        fs::read_to_string(customer.path().join("cmd")).unwrap(),
        "/sbin/init\n"
    );
    assert_eq!(fs::read_to_string(customer.path().join("env")).unwrap(), "");
    assert!(!customer.path().join("user").exists());
    let init = at("rootfs/sbin/init");
    assert_eq!(
        (init.mode(), init.uid(), init.gid(), init.mtime(), init.nlink()),
        (0o100_755, 5, 6, 0, 2)
    );
    assert_eq!(init.ino(), at("rootfs/sbin/second").ino());
    assert_eq!(at("rootfs/tmp").mode(), 0o041_777);
    assert_eq!(at("rootfs/zero").rdev(), rustix::fs::makedev(1, 5));
    assert!(!customer.path().join("rootfs/socket").exists());
    let metadata = built.metadata();
    assert_eq!(
        (&metadata["DockerInfo"], &metadata["ImageVersion"]),
        (&Value::Null, &json!("1.0"))
    );
    assert_eq!(
        metadata["BuildMetadata"]["BuildTime"],
        "1970-01-01T00:00:00+00:00"
    );
}

#[test]
fn the_same_files_give_the_same_bytes_on_another_day() {
    let bench = Bench::new();
    write_root(&bench.path("one"));
    write_root(&bench.path("two"));
    for name in ["two/sbin/init", "two/sbin", "two"] {
        assert!(
            Command::new("touch")
                .args(["-d", "@12345"])
                .arg(bench.path(name))
                .status()
                .unwrap()
                .success()
        );
    }
    assert!(bench.build("one").unwrap().eif == bench.build("two").unwrap().eif);
}

#[test]
fn source_date_epoch_is_the_build_time_and_the_newest_file() {
    let bench = Bench::new();
    write_root(&bench.path("root"));
    let layer = [("old", 1000), ("new", 3000)]
        .iter()
        .fold(TarWriter::new(), |tar, (name, mtime)| {
            tar.entry(
                name,
                b'0',
                b"",
                b"",
                Extra {
                    mtime: *mtime,
                    ..Extra::mode(0o644)
                },
            )
        });
    write_directory(&Image::new(vec![layer.finish()]).layout(), &bench.path("layout"));
    let options = BuildOptions {
        source_date_epoch: Some(2000),
        ..BuildOptions::default()
    };
    let mtime = |built: &Built, name: &str| {
        built
            .unpack(1)
            .path()
            .join("rootfs")
            .join(name)
            .metadata()
            .unwrap()
            .mtime()
    };
    let image = bench.build_with("layout", &options).unwrap();
    assert_eq!((mtime(&image, "old"), mtime(&image, "new")), (1000, 2000));
    assert_eq!(
        image.metadata()["BuildMetadata"]["BuildTime"],
        "1970-01-01T00:33:20+00:00"
    );
    assert_eq!(
        mtime(&bench.build_with("root", &options).unwrap(), "sbin/init"),
        2000
    );
}

#[test]
fn aws_shaped_directories_bring_their_command() {
    let bench = Bench::new();
    write_root(&bench.path("shape/rootfs"));
    bench.file("shape/cmd", b"/bin/app\nan argument\r\n\nlast");
    bench.file("shape/env", b"A=1\nB=2\n");
    bench.file("shape/workdir", b"/srv\n");
    let built = bench.build("shape").unwrap();
    let customer = built.unpack(1);
    let read = |name: &str| fs::read_to_string(customer.path().join(name)).unwrap();
    assert_eq!(
        (&*read("cmd"), &*read("env")),
        ("/bin/app\nan argument\r\n\nlast\n", "A=1\nB=2\n")
    );
    assert_eq!(read("workdir"), "/srv\n");
    assert!(customer.path().join("rootfs/sbin/init").exists());
    assert!(!customer.path().join("rootfs/rootfs").exists());
}

#[test]
fn options_override_what_the_image_says() {
    let bench = Bench::new();
    write_directory(&sample().layout(), &bench.path("layout"));
    let execution = Execution {
        command: vec!["/bin/sh".into(), "-c".into(), "exit".into()],
        environment: vec!["NEW=1".into(), "EMPTY=full".into()],
        working_directory: String::new(),
        user: "root".into(),
    };
    let built = bench
        .build_with(
            "layout",
            &BuildOptions {
                execution,
                ..BuildOptions::default()
            },
        )
        .unwrap();
    let expected = Execution {
        command: vec!["/bin/sh".into(), "-c".into(), "exit".into()],
        environment: vec!["PATH=/bin".into(), "EMPTY=full".into(), "NEW=1".into()],
        working_directory: "/srv".into(),
        user: "root".into(),
    };
    assert_eq!(built.report.execution, expected);
    assert_eq!(
        listing(built.unpack(1).path())["env"],
        "644 PATH=/bin\nEMPTY=full\nNEW=1\n"
    );
}

#[test]
fn progress_names_layers_and_ends_at_the_total() {
    let bench = Bench::new();
    write_directory(&sample().layout(), &bench.path("layout"));
    let source = Source::detect(bench.path("layout")).unwrap();
    let mut seen = Vec::new();
    let output = bench.path("out/image.eif");
    build(
        &source,
        &bench.blobs,
        &BuildOptions::default(),
        &output,
        &mut |step| seen.push(step),
    )
    .unwrap();
    assert_eq!(
        seen[..2],
        [
            Progress::Layer { number: 1, count: 2 },
            Progress::Layer { number: 2, count: 2 }
        ]
    );
    assert!(
        matches!(seen.last(), Some(Progress::Write { written, total }) if written == total && *total > 0)
    );
}

#[test]
fn a_directory_and_its_archive_by_gnu_tar_measure_the_same() {
    let bench = Bench::new();
    write_root(&bench.path("root"));
    fs::set_permissions(bench.path("root"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        bench.path("root/binary"),
        (0..=255).cycle().take(300_000).collect::<Vec<u8>>(),
    )
    .unwrap();
    fs::create_dir_all(bench.path("root").join("n".repeat(200)).join("m".repeat(200))).unwrap();
    let options = BuildOptions {
        execution: Execution {
            command: vec!["/bin/app".into()],
            ..Execution::default()
        },
        ..BuildOptions::default()
    };
    let directory = bench.build_with("root", &options).unwrap();
    for format in ["gnu", "posix"] {
        let tar = Command::new("tar")
            .args([
                "--create",
                "--numeric-owner",
                "--mtime=@0",
                "--format",
                format,
                ".",
            ])
            .current_dir(bench.path("root"))
            .output()
            .unwrap();
        let mut image = Image::new(vec![tar.stdout]);
        image.config["config"] = json!({"Cmd": ["/bin/app"]});
        write_directory(&image.layout(), &bench.path(format));
        let image = bench.build_with(format, &options).unwrap();
        assert_eq!(
            image.report.measurements, directory.report.measurements,
            "{format}"
        );
    }
}
