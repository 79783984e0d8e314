use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::test_server::{Answer, Request, Server, closed_port};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry in which `a/b:v1` is a manifest, and its layer.
fn registry_answer(request: &Request) -> Answer {
    let manifest = b"{\"manifest\": 1}";
    let layer = b"layer";
    let path = request.target.split('?').next().unwrap();
    let answers = BTreeMap::from([
        ("/v2/a/b/manifests/v1".to_owned(), &manifest[..]),
        (
            format!("/v2/a/b/manifests/{}", Digest::sha256(manifest)),
            manifest,
        ),
        (format!("/v2/a/b/blobs/{}", Digest::sha256(layer)), layer),
    ]);
    match answers.get(path) {
        Some(body) => Answer::new(200, *body),
        None => Answer::new(
            404,
            r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest\u001b unknown"}]}"#,
        ),
    }
}

fn layer() -> (Digest, u64) {
    (Digest::sha256(b"layer"), 5)
}

/// A client with a cache and credentials of its own.
struct Machine {
    directory: tempfile::TempDir,
    mirrors: Vec<Mirror>,
}

impl Machine {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            mirrors: Vec::new(),
        }
    }

    fn log_in(&self, host: &str, entry: &str) {
        let json = format!(r#"{{"auths": {{"{host}": {entry}}}}}"#);
        fs::write(self.directory.path().join("auth.json"), json).unwrap();
    }

    fn repository(&self, reference: &str) -> Repository {
        let file = self.directory.path().join("auth.json");
        let variable = |name: &str| (name == "REGISTRY_AUTH_FILE").then(|| file.clone().into_os_string());
        let mut settings = Settings::of_environment(self.directory.path().join("cache"), &variable);
        settings.mirrors = self.mirrors.clone();
        Registry::new(settings)
            .repository(&reference.parse().unwrap())
            .unwrap()
    }

    fn pull(&self, host: &str) -> Result<Vec<u8>, FetchError> {
        let repository = self.repository(&format!("{host}/a/b:v1"));
        repository.resolve()?;
        let (digest, size) = layer();
        let mut bytes = Vec::new();
        let mut file = repository.blob(&digest, size, &mut |_| {})?;
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }
}

#[test]
fn manifests_and_blobs_are_fetched_once() {
    let server = Server::start(registry_answer);
    let machine = Machine::new();
    let repository = machine.repository(&format!("{}/a/b:v1", server.host()));
    let manifest = repository.resolve().unwrap();
    assert_eq!(manifest.bytes, b"{\"manifest\": 1}");
    let (digest, size) = layer();
    let mut received = Vec::new();
    repository
        .blob(&digest, size, &mut |bytes| received.push(bytes))
        .unwrap();
    repository.blob(&digest, size, &mut |_| {}).unwrap();
    assert_eq!(received.last(), Some(&size));
    let expected = [
        "/v2/a/b/manifests/v1".to_owned(),
        format!("/v2/a/b/blobs/{digest}"),
    ];
    assert_eq!(server.targets(), expected);
    assert!(
        server.requests()[0]
            .header("accept")
            .unwrap()
            .contains(OCI_MANIFEST)
    );

    // By digest, nobody needs to be asked any more.
    let pinned = format!("127.0.0.1:{}/a/b@{}", closed_port(), manifest.digest);
    assert_eq!(
        machine.repository(&pinned).resolve().unwrap().bytes,
        manifest.bytes
    );
}

#[test]
fn what_is_not_there_is_named_with_the_servers_words() {
    let server = Server::start(registry_answer);
    let machine = Machine::new();
    let error = machine
        .repository(&format!("{}/a/b:v2", server.host()))
        .resolve()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the registry `{0}` has no image `{0}/a/b:v2` (MANIFEST_UNKNOWN: manifest  unknown)",
            server.host()
        )
    );
    let nobody = format!("127.0.0.1:{}", closed_port());
    let error = machine.pull(&nobody).unwrap_err();
    assert!(
        matches!(&error, FetchError::Unreachable { host, .. } if *host == nobody),
        "{error}"
    );
}

type Check = fn(&FetchError) -> bool;

#[test]
fn other_bytes_than_those_of_the_digest_are_refused() {
    let (digest, size) = layer();
    let cases: [(&'static [u8], Check); 3] = [
        (b"lager", |error| matches!(error, FetchError::Digest { .. })),
        (b"layers", |error| {
            matches!(
                error,
                FetchError::Size {
                    is_larger: true,
                    limit: 5,
                    ..
                }
            )
        }),
        (b"laye", |error| {
            matches!(error, FetchError::Size { is_larger: false, .. })
        }),
    ];
    for (body, is_expected) in cases {
        let server = Server::start(move |_| Answer::new(200, body));
        let machine = Machine::new();
        let repository = machine.repository(&format!("{}/a/b:v1", server.host()));
        let error = repository.blob(&digest, size, &mut |_| {}).unwrap_err();
        assert!(is_expected(&error), "{error:?}");
        let error = repository.manifest(&digest).unwrap_err();
        assert!(matches!(error, FetchError::Digest { .. }), "{error:?}");
    }
}

#[test]
fn a_document_without_end_is_cut_off() {
    let server = Server::start(|_| Answer::new(200, vec![b' '; 5 << 20]));
    let repository = Machine::new().repository(&format!("{}/a/b:v1", server.host()));
    for error in [
        repository.resolve().unwrap_err(),
        repository.document(&layer().0).unwrap_err(),
    ] {
        assert!(
            matches!(
                error,
                FetchError::Size {
                    is_larger: true,
                    limit: DOCUMENT_LIMIT,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

#[test]
fn what_passes_is_tried_again() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::new(503, ""),
        2 => Answer {
            announced: Some(5),
            ..Answer::new(200, "lay")
        },
        _ => registry_answer(request),
    });
    assert_eq!(Machine::new().pull(&server.host()).unwrap(), b"layer");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_password_goes_to_its_registry_only_when_it_is_wanted() {
    let server = Server::start(|request| {
        let wanted = format!("Basic {}", STANDARD.encode("me:secret"));
        if request.header("authorization") == Some(&wanted) {
            registry_answer(request)
        } else {
            Answer::new(401, "").header("WWW-Authenticate", "Basic realm=\"x\"")
        }
    });
    let machine = Machine::new();
    let error = machine.pull(&server.host()).unwrap_err();
    assert!(matches!(error, FetchError::NoCredentials { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains(&format!("`docker login {}`", server.host()))
    );

    machine.log_in(&server.host(), r#"{"username": "me", "password": "wrong"}"#);
    let error = machine.pull(&server.host()).unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("wrong"));

    machine.log_in(&server.host(), r#"{"username": "me", "password": "secret"}"#);
    assert_eq!(machine.pull(&server.host()).unwrap(), b"layer");
    let authorized = server
        .requests()
        .iter()
        .filter(|request| request.header("authorization").is_some())
        .count();
    assert_eq!(
        authorized,
        1 + 2,
        "the wrong one once; then two requests, the first of which was first tried without"
    );
}

/// A registry whose tokens `token_server` gives for `me` and `secret`, or for a refresh token.
fn with_tokens() -> (Server, Server) {
    let tokens = Server::start(|request| {
        let basic = format!("Basic {}", STANDARD.encode("me:secret"));
        let is_me = request.header("authorization") == Some(&basic);
        let is_refresh = request.method == "POST" && request.body.contains("refresh_token=id%2Btoken");
        if is_me || is_refresh {
            Answer::new(200, r#"{"access_token": "t1"}"#)
        } else if request.header("authorization").is_none() && request.method == "GET" {
            Answer::new(200, r#"{"token": "anonymous"}"#)
        } else {
            Answer::new(401, "")
        }
    });
    let realm = format!("http://{}/token", tokens.host());
    let registry = Server::start(move |request| {
        if request.header("authorization") == Some("Bearer t1") {
            return registry_answer(request);
        }
        let challenge =
            format!("Bearer realm=\"{realm}\",service=\"test service\",scope=\"repository:a/b:pull\"");
        Answer::new(401, "").header("WWW-Authenticate", challenge)
    });
    (registry, tokens)
}

#[test]
fn tokens_are_fetched_and_kept() {
    let (registry, tokens) = with_tokens();
    let machine = Machine::new();
    let error = machine.pull(&registry.host()).unwrap_err();
    assert!(matches!(error, FetchError::NoCredentials { .. }), "{error}");
    assert_eq!(
        tokens.targets(),
        ["/token?scope=repository%3Aa%2Fb%3Apull&service=test%20service"],
        "also without a password: most images are public"
    );

    machine.log_in(&registry.host(), r#"{"auth": "bWU6c2VjcmV0"}"#);
    assert_eq!(machine.pull(&registry.host()).unwrap(), b"layer");
    assert_eq!(tokens.requests().len(), 2, "one for both requests");
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.header("authorization") != Some("Basic bWU6c2VjcmV0"))
    );

    let other = Machine::new();
    other.log_in(&registry.host(), r#"{"identitytoken": "id+token"}"#);
    assert_eq!(other.pull(&registry.host()).unwrap(), b"layer");
    let request = tokens.requests().pop().unwrap();
    assert_eq!(
        (request.method.as_str(), request.header("authorization")),
        ("POST", None)
    );
    assert!(
        request.body.contains("grant_type=refresh_token"),
        "{}",
        request.body
    );
}

#[test]
fn redirects_are_followed_without_the_password() {
    let storage = Server::start(|request| match request.target.as_str() {
        "/stored?signature=s3cret" => Answer::new(200, "layer"),
        _ => Answer::new(403, "denied for signature=s3cret"),
    });
    for (location, is_there) in [("stored", true), ("other", false)] {
        let target = format!("http://{}/{location}?signature=s3cret", storage.host());
        let server = Server::start(move |request| {
            if request.header("authorization").is_none() {
                Answer::new(401, "").header("WWW-Authenticate", "Basic")
            } else if request.target.contains("/blobs/") {
                Answer::new(307, "").header("Location", target.clone())
            } else {
                registry_answer(request)
            }
        });
        let machine = Machine::new();
        machine.log_in(&server.host(), r#"{"username": "me", "password": "secret"}"#);
        match machine.pull(&server.host()) {
            Ok(bytes) => assert!(is_there && bytes == b"layer"),
            Err(error) => assert!(
                !is_there && !format!("{error} {error:?}").contains("s3cret"),
                "{error}"
            ),
        }
    }
    assert!(
        storage
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
}

#[test]
fn redirects_end_and_do_not_leave_tls() {
    let cases = [
        ("/v2/a/b/manifests/v1", "again and again"),
        ("http://registry.example/v2/", "without TLS"),
        ("ftp://127.0.0.1/", "no address"),
        ("https://me@127.0.0.1/", "no address"),
        ("", "no address"),
    ];
    for (location, reason) in cases {
        let server = Server::start(move |_| Answer::new(302, "").header("Location", location));
        let error = Machine::new().pull(&server.host()).unwrap_err();
        assert!(error.to_string().contains(reason), "{location}: {error}");
    }
    let server = Server::start(|_| {
        Answer::new(401, "").header("WWW-Authenticate", "Bearer realm=\"http://tokens.example/\"")
    });
    let machine = Machine::new();
    machine.log_in(&server.host(), r#"{"username": "me", "password": "secret"}"#);
    let error = machine.pull(&server.host()).unwrap_err();
    assert!(error.to_string().contains("without TLS"), "{error}");
}

#[test]
fn mirrors_are_asked_first_for_the_registry_that_is_meant() {
    let mirror = Server::start(|request| {
        if request.target.contains("/blobs/") {
            return Answer::new(404, "");
        }
        let target = request.target.strip_prefix("/proxy").unwrap().to_owned();
        registry_answer(&Request {
            target,
            ..request.clone()
        })
    });
    let origin = Server::start(registry_answer);
    let mut machine = Machine::new();
    machine.mirrors = vec![
        format!("http://127.0.0.1:{}", closed_port()).parse().unwrap(),
        format!("http://{}/proxy/", mirror.host()).parse().unwrap(),
    ];
    machine.log_in(&origin.host(), r#"{"username": "me", "password": "secret"}"#);
    assert_eq!(machine.pull(&origin.host()).unwrap(), b"layer");
    let (digest, _) = layer();
    let namespace = origin.host();
    assert_eq!(
        mirror.targets(),
        [
            format!("/proxy/v2/a/b/manifests/v1?ns={namespace}"),
            format!("/proxy/v2/a/b/blobs/{digest}?ns={namespace}"),
        ]
    );
    assert_eq!(origin.targets(), [format!("/v2/a/b/blobs/{digest}")]);

    let error = machine
        .repository(&format!("{}/a/b:v2", origin.host()))
        .resolve()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("the registry `{}` has no image", origin.host())),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "of the mirrors: cannot reach the registry `{}`",
            machine.mirrors[0].host
        )),
        "{text}"
    );
}

#[test]
fn a_mirror_is_an_address_with_tls() {
    for text in [
        "https://mirror.example",
        "https://mirror.example:5000/a/b/",
        "http://localhost:5000",
        "https://[::1]:5000",
    ] {
        text.parse::<Mirror>().unwrap();
    }
    for text in [
        "",
        "mirror.example",
        "http://mirror.example",
        "https://",
        "https://me@mirror.example",
        "https://mirror.example/?x",
        "https://mirror.example/a:b",
        "https://mirror",
        "ftp://localhost",
    ] {
        assert_eq!(text.parse::<Mirror>(), Err(MirrorError), "{text}");
    }
}
