//! build-enclave of images that are not in files: registries and container engines.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::build_enclave::{build, names, workplace};
use crate::container_images::{Image, archive, write_directory};
use crate::program::Program;
use crate::registry::{Access, Registry, USER, log_in};
use crate::tar_writer::{Extra, TarWriter};
use crate::test_server::{Answer, Server, closed_port};

/// An image of two layers.
pub(crate) fn image() -> Image {
    let lower = TarWriter::new()
        .entry("bin/app", b'0', b"", b"application", Extra::mode(0o4755))
        .file("etc/removed", "x")
        .finish();
    Image::new(vec![lower, TarWriter::new().file("etc/.wh.removed", "").finish()])
}

/// Where images are fetched to, for builds in `directory`.
fn fetch(directory: &Path, source: &str, more: &[&str]) -> Program {
    build(directory, source, more)
        .env("NITRO_CLI_ARTIFACTS", directory.join("artifacts"))
        .env("PATH", "/usr/bin:/bin")
}

#[track_caller]
fn measured(program: Program) -> Value {
    let finished = program.run();
    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_eq!(
        finished.stderr,
        "Start building the Enclave Image...\nEnclave Image successfully created.\n"
    );
    serde_json::from_str(&finished.stdout).unwrap()
}

/// A directory to build in, with the image as an OCI layout, and what that measures.
fn with_layout(image: &Image) -> (TempDir, Value) {
    let directory = workplace();
    write_directory(&image.layout(), &directory.path().join("layout"));
    let expected = measured(build(directory.path(), "layout", &[]));
    (directory, expected)
}

/// Removes what was fetched before.
fn forget(directory: &Path) {
    fs::remove_dir_all(directory.join("artifacts")).unwrap();
}

#[test]
fn an_image_is_the_same_from_a_registry_as_from_a_layout() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let directory = directory.path();
    let storage = tempfile::tempdir().unwrap();
    let pinned;
    {
        let registry = Registry::start(storage.path(), Access::Open);
        let digest = registry.push(&image, "team/hello", "v1");
        let tagged = format!("{}/team/hello:v1", registry.host);
        assert_eq!(measured(fetch(directory, &tagged, &[])), expected);
        let first = fs::read(directory.join("out.eif")).unwrap();
        assert_eq!(
            measured(fetch(directory, &format!("docker://{tagged}"), &[])),
            expected
        );
        assert!(
            fs::read(directory.join("out.eif")).unwrap() == first,
            "from the cache"
        );
        forget(directory);
        assert_eq!(measured(fetch(directory, &tagged, &[])), expected);
        assert!(
            fs::read(directory.join("out.eif")).unwrap() == first,
            "fetched anew"
        );
        pinned = format!("{}/team/hello@{digest}", registry.host);
        forget(directory);
        assert_eq!(measured(fetch(directory, &pinned, &[])), expected);

        let described = Program::new(["describe-eif", "--eif-path", "out.eif"])
            .directory(directory)
            .run();
        let described: Value = serde_json::from_str(&described.stdout).unwrap();
        assert_eq!(described["ImageName"], format!("{}/team/hello", registry.host));
    }
    assert_eq!(
        measured(fetch(directory, &pinned, &[])),
        expected,
        "without the registry"
    );
}

#[test]
fn a_password_of_docker_or_of_its_helper_opens_a_registry() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let directory = directory.path();
    let storage = tempfile::tempdir().unwrap();
    Registry::start(storage.path(), Access::Open).push(&image, "hello", "latest");
    let registry = Registry::start(storage.path(), Access::Password);
    let source = format!("{}/hello", registry.host);

    let refused = fetch(directory, &source, &[]).run();
    refused.assert_failed(50, &["E50"]);
    refused.assert_says(&[&format!("`{source}`"), "wants credentials", "`docker login"]);

    let wrong = log_in(directory, &registry.host, "wr0ng");
    let refused = fetch(directory, &source, &[])
        .env("REGISTRY_AUTH_FILE", &wrong)
        .run();
    refused.assert_failed(50, &["E50"]);
    refused.assert_says(&["refuses the credentials"]);
    assert!(!refused.stderr.contains("wr0ng"), "{refused:#?}");

    let config = log_in(directory, &registry.host, USER.1);
    assert_eq!(
        measured(fetch(directory, &source, &[]).env("DOCKER_CONFIG", directory)),
        expected
    );
    forget(directory);
    assert_eq!(
        measured(fetch(directory, &source, &[]).env("DOCKER_CONFIG", &config)),
        expected
    );

    let helper = directory.join("bin/docker-credential-test");
    fs::create_dir(directory.join("bin")).unwrap();
    let answer = json!({"ServerURL": registry.host, "Username": USER.0, "Secret": USER.1});
    let script = format!(
        "#!/bin/sh\nread -r server || [ \"$server\" = {} ] || exit 1\necho '{answer}'\n",
        registry.host
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    for json in [
        json!({"credsStore": "test"}),
        json!({"credHelpers": {&registry.host: "test"}}),
    ] {
        forget(directory);
        fs::write(&config, json.to_string()).unwrap();
        let path = format!("{}:/usr/bin:/bin", directory.join("bin").display());
        assert_eq!(
            measured(
                fetch(directory, &source, &[])
                    .env("DOCKER_CONFIG", directory)
                    .env("PATH", path)
            ),
            expected
        );
    }
}

#[test]
fn a_registry_of_a_private_authority_is_believed_when_it_is_named() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let directory = directory.path();
    let storage = tempfile::tempdir().unwrap();
    Registry::start(storage.path(), Access::Open).push(&image, "hello", "v1");
    let registry = Registry::start(storage.path(), Access::Tls);
    let source = format!("{}/hello:v1", registry.host);
    let authority = storage.path().join("ca.pem");

    let refused = fetch(directory, &source, &[]).run();
    refused.assert_failed(50, &["E50"]);
    refused.assert_says(&[
        "is not trusted",
        &format!("/etc/docker/certs.d/{}/ca.crt", registry.host),
        "--registry-ca",
    ]);

    let option = ["--registry-ca", authority.to_str().unwrap()];
    assert_eq!(measured(fetch(directory, &source, &option)), expected);

    forget(directory);
    let certificates = directory
        .join("home/.config/containers/certs.d")
        .join(&registry.host);
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(&authority, certificates.join("ca.crt")).unwrap();
    assert_eq!(
        measured(fetch(directory, &source, &[]).env("HOME", directory.join("home"))),
        expected
    );
}

#[test]
fn of_an_index_the_image_for_enclaves_is_taken() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let mut arm = image.clone();
    arm.config["architecture"] = json!("arm64");
    let storage = tempfile::tempdir().unwrap();
    let registry = Registry::start(storage.path(), Access::Open);
    let mut manifests = Vec::new();
    for (image, architecture) in [(&arm, "arm64"), (&image, "amd64")] {
        registry.push(image, "hello", architecture);
        let mut descriptor = image.blobs().1;
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(descriptor);
    }
    let index = |manifests: &[Value]| json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests});
    registry.push_index("hello", "both", &index(&manifests));
    registry.push_index("hello", "other", &index(&manifests[..1]));

    assert_eq!(
        measured(fetch(
            directory.path(),
            &format!("{}/hello:both", registry.host),
            &[]
        )),
        expected
    );
    let refused = fetch(directory.path(), &format!("{}/hello:other", registry.host), &[]).run();
    refused.assert_failed(48, &["E48"]);
    refused.assert_says(&["linux/arm64; enclaves run linux/amd64"]);
}

#[test]
fn a_mirror_gives_what_its_registry_would() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let storage = tempfile::tempdir().unwrap();
    let mirror = Registry::start(storage.path(), Access::Open);
    mirror.push(&image, "library/hello", "v1");
    let option = ["--registry-mirror", &format!("http://{}", mirror.host)];

    assert_eq!(measured(fetch(directory.path(), "hello:v1", &option)), expected);

    let refused = fetch(
        directory.path(),
        "hello:v1",
        &["--registry-mirror", "mirror.example"],
    )
    .run();
    refused.assert_failed(3, &["E03"]);
    refused.assert_says(&["`mirror.example` of `--registry-mirror`", "`https://HOST`"]);
}

#[test]
fn what_cannot_be_pulled_is_e50_and_leaves_nothing() {
    let directory = workplace();
    let nobody = format!("127.0.0.1:{}", closed_port());
    let empty = Server::start(|_| Answer::new(404, r#"{"errors": [{"code": "NAME_UNKNOWN"}]}"#));
    let junk = Server::start(|_| Answer::new(200, "junk"));
    let cases = [
        (format!("{nobody}/hello:v1"), 50, "cannot reach the registry"),
        (format!("{}/hello:v1", empty.host()), 50, "(NAME_UNKNOWN)"),
        (format!("{}/hello:v1", junk.host()), 48, "is not valid"),
        (
            "not an:image".to_owned(),
            50,
            "neither a file or directory on this machine nor the name of an image",
        ),
        ("docker://hello@sha256:12".to_owned(), 50, "its digest is not"),
    ];
    for (source, code, reason) in cases {
        let finished = fetch(directory.path(), &source, &[]).run();

        finished.assert_failed(code, &[&format!("E{code}")]);
        finished.assert_says(&["Start building the Enclave Image...\n", reason]);
        assert!(!directory.path().join("out.eif").exists());
    }
}

#[test]
fn an_image_from_a_registry_needs_a_place_to_be_kept() {
    let directory = workplace();

    let finished = build(directory.path(), "docker://hello", &[]).run();

    finished.assert_failed(51, &["E51"]);
    finished.assert_says(&["NITRO_CLI_ARTIFACTS", "HOME"]);
    assert_eq!(names(directory.path()), ["blobs", "hello"]);
}

#[test]
fn builds_at_the_same_time_do_not_meet() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let directory = directory.path();
    let storage = tempfile::tempdir().unwrap();
    let registry = Registry::start(storage.path(), Access::Open);
    registry.push(&image, "hello", "v1");
    let source = format!("{}/hello:v1", registry.host);

    let builds: Vec<_> = (0..6).map(|_| fetch(directory, &source, &[]).spawn()).collect();
    for build in builds {
        let finished = crate::program::Finished::wait_for(build);
        assert_eq!(finished.code, 0, "{finished:#?}");
        assert_eq!(serde_json::from_str::<Value>(&finished.stdout).unwrap(), expected);
    }
    assert_eq!(
        names(directory),
        ["artifacts", "blobs", "hello", "layout", "out.eif"]
    );
    let blobs = names(&directory.join("artifacts/layers/blobs/sha256"));
    assert_eq!(
        blobs.len(),
        4,
        "manifest, configuration, two layers, and nothing else: {blobs:?}"
    );
}

/// A container engine that has `hello:v1` and nothing else.
fn engine(directory: &Path, image: &Image) -> Server {
    let saved = archive(&image.docker_save());
    Server::on_socket(&directory.join("engine.sock"), move |request| {
        match request.target.as_str() {
            "/_ping" => Answer::new(200, "OK"),
            "/images/hello:v1/json" => Answer::new(200, "{}"),
            "/images/hello:v1/get" => Answer::new(200, saved.clone()),
            _ => Answer::new(404, "{\"message\": \"no such image\"}"),
        }
    })
}

#[test]
fn a_plain_name_is_taken_from_the_engine_that_has_it() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let directory = directory.path();
    let _engine = engine(directory, &image);
    let host = format!("unix://{}/engine.sock", directory.display());

    let finished = build(directory, "hello:v1", &[]).env("DOCKER_HOST", &host).run();

    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_eq!(
        finished.stderr,
        "Start building the Enclave Image...\nUsing the locally available Docker image...\n\
         Enclave Image successfully created.\n"
    );
    assert_eq!(serde_json::from_str::<Value>(&finished.stdout).unwrap(), expected);
    let described = Program::new(["describe-eif", "--eif-path", "out.eif"])
        .directory(directory)
        .run();
    let described: Value = serde_json::from_str(&described.stdout).unwrap();
    assert_eq!(described["ImageName"], "hello");
    assert_eq!(
        described["Metadata"]["DockerInfo"]["RepoTags"],
        json!(["hello:v1"])
    );
}

#[test]
fn what_the_engine_has_not_comes_from_a_registry() {
    let image = image();
    let (directory, expected) = with_layout(&image);
    let directory = directory.path();
    let engine = engine(directory, &image);
    let storage = tempfile::tempdir().unwrap();
    let registry = Registry::start(storage.path(), Access::Open);
    registry.push(&image, "hello", "v1");
    let source = format!("{}/hello:v1", registry.host);
    let host = format!("unix://{}/engine.sock", directory.display());

    assert_eq!(
        measured(fetch(directory, &source, &[]).env("DOCKER_HOST", &host)),
        expected
    );
    let asked = engine.requests().len();
    assert_eq!(asked, 2, "whether it is there, and whether it has it");
    let explicit = format!("docker://{source}");
    assert_eq!(
        measured(fetch(directory, &explicit, &[]).env("DOCKER_HOST", &host)),
        expected
    );
    assert_eq!(
        engine.requests().len(),
        asked,
        "not asked for what is to be from a registry"
    );

    let finished = fetch(directory, &source, &[])
        .env("DOCKER_HOST", "unix:///nonexistent")
        .run();
    finished.assert_failed(48, &["E48"]);
    finished.assert_says(&[
        "DOCKER_HOST",
        "the container engine at `/nonexistent` does not answer",
    ]);
}

/// A directory with a Dockerfile for busybox, and a configuration of buildah's storage that is in it as well.
fn dockerfile() -> TempDir {
    let directory = workplace();
    furnish_for_dockerfile(directory.path(), "context");
    directory
}

/// Makes both in `directory`, the Dockerfile in its subdirectory `context`.
pub(crate) fn furnish_for_dockerfile(directory: &Path, context: &str) {
    let context = directory.join(context);
    fs::create_dir(&context).unwrap();
    fs::copy("/bin/busybox", context.join("busybox")).unwrap();
    fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY busybox /bin/busybox\nENTRYPOINT [\"/bin/busybox\", \"echo\"]\nCMD [\"hello\"]\n",
    )
    .unwrap();
    let storage = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
        directory.join("storage").display()
    );
    fs::write(directory.join("storage.conf"), storage).unwrap();
}

fn build_dockerfile(directory: &Path, more: &[&str]) -> Program {
    let options = ["--docker-dir", "context"]
        .iter()
        .chain(more)
        .copied()
        .collect::<Vec<_>>();
    build(directory, "hello:latest", &options)
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("HOME", directory)
        .env("BUILDAH_ISOLATION", "chroot")
        .env("CONTAINERS_STORAGE_CONF", directory.join("storage.conf"))
}

#[test]
fn a_dockerfile_is_built_without_a_daemon() {
    let directory = dockerfile();
    let directory = directory.path();

    let finished = build_dockerfile(directory, &[]).run();

    assert_eq!(finished.code, 0, "{finished:#?}");
    finished.assert_says(&[
        "Start building the Enclave Image...\n",
        "COPY busybox /bin/busybox\n",
        "Enclave Image successfully created.\n",
    ]);
    let described = Program::new(["describe-eif", "--eif-path", "out.eif"])
        .directory(directory)
        .run();
    let described: Value = serde_json::from_str(&described.stdout).unwrap();
    assert_eq!(described["ImageName"], "hello");
    let config = &described["Metadata"]["DockerInfo"]["Config"];
    assert_eq!(
        (&config["Entrypoint"], &config["Cmd"]),
        (&json!(["/bin/busybox", "echo"]), &json!(["hello"]))
    );

    let first = fs::read(directory.join("out.eif")).unwrap();
    let again = build_dockerfile(directory, &["--quiet"]).run();
    assert!(
        fs::read(directory.join("out.eif")).unwrap() == first,
        "the same bytes"
    );
    assert_eq!(
        (again.code, again.stderr.as_str(), again.stdout),
        (0, "", finished.stdout)
    );
}

#[test]
fn a_dockerfile_that_cannot_be_built_is_e49_with_what_the_engine_said() {
    let directory = dockerfile();
    let directory = directory.path();
    fs::write(
        directory.join("context/Dockerfile"),
        "FROM scratch\nCOPY missing /\n",
    )
    .unwrap();
    for options in [&[][..], &["--quiet"]] {
        let finished = build_dockerfile(directory, options).run();

        finished.assert_failed(49, &["E49"]);
        finished.assert_says(&["missing", "`buildah` could not build", "what it said is above"]);
        assert!(!directory.join("out.eif").exists());
    }

    let finished = build_dockerfile(directory, &[]).env("PATH", directory).run();
    finished.assert_failed(49, &["E49"]);
    finished.assert_says(&["Install buildah, podman or docker"]);

    fs::remove_file(directory.join("context/Dockerfile")).unwrap();
    let finished = build_dockerfile(directory, &[]).run();
    finished.assert_failed(49, &["E49"]);
    finished.assert_says(&["no `Dockerfile` in `context`"]);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let image = image();
    let (directory, _) = with_layout(&image);
    let directory = directory.path();
    let (files, descriptor) = image.blobs();
    let manifest = descriptor["digest"].as_str().unwrap().to_owned();
    let server = Server::start(move |request| {
        let target = request.target.replace(
            "/v2/hello/manifests/v1",
            &format!("/{}", manifest.replace(':', "/")),
        );
        let name = target.replace("/v2/hello/blobs/", "/").replace(':', "/");
        match files.iter().find(|(path, _)| path.ends_with(&name)) {
            // A layer that takes its time.
            Some((_, bytes)) if bytes.starts_with(&[0x1f, 0x8b]) => Answer {
                announced: Some(bytes.len()),
                ..Answer::new(200, "")
            }
            .stalling(),
            Some((_, bytes)) => Answer::new(200, bytes.clone()),
            None => Answer::new(404, ""),
        }
    });
    fs::remove_file(directory.join("out.eif")).unwrap();
    let before = names(directory);

    let mut running = fetch(directory, &format!("{}/hello:v1", server.host()), &[]).spawn();
    while server.requests().len() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = running.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );

    assert_eq!(running.wait().unwrap().signal(), Some(2));
    let mut expected = before;
    expected.insert(0, "artifacts".to_owned());
    assert_eq!(names(directory), expected);
    let blobs = names(&directory.join("artifacts/layers/blobs/sha256"));
    assert_eq!(
        blobs.len(),
        2,
        "manifest and configuration, which are whole: {blobs:?}"
    );
}
