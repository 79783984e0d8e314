use std::io::Seek;

use super::*;
use crate::test_server::{Answer, Server, closed_port};

fn engine(directory: &Path) -> Server {
    Server::on_socket(&directory.join("docker.sock"), |request| {
        match request.target.as_str() {
            "/_ping" => Answer::new(200, "OK"),
            "/images/hello:v1/json" => Answer::new(200, "{}"),
            "/images/hello:v1/get" => Answer::new(200, vec![7; 600_000]),
            "/images/broken/json" => Answer::new(500, "{\"message\": \"no\"}"),
            _ => Answer::new(404, "{\"message\": \"no such image\"}"),
        }
    })
}

fn find(variables: &[(&str, &str)]) -> Result<Option<Engine>, EngineError> {
    Engine::find(&|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).into())
    })
}

#[test]
fn an_image_is_saved_from_the_engine_that_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let _server = engine(directory.path());
    let address = format!("unix://{}/docker.sock", directory.path().display());
    let engine = find(&[("DOCKER_HOST", &address)]).unwrap().unwrap();
    let hello = "hello:v1";

    assert!(engine.has(hello).unwrap());
    assert!(!engine.has("hello:v2").unwrap());
    let error = engine.has("broken").unwrap_err();
    assert!(
        matches!(&error, EngineError::Status { status: 500, .. }),
        "{error}"
    );

    let error = engine.has("../../containers/json?x=").unwrap_err();
    assert!(matches!(&error, EngineError::Name { .. }), "{error}");

    let mut file = tempfile::tempfile().unwrap();
    let mut received = 0;
    engine
        .save(hello, &file, 600_000, &mut |bytes| received = bytes)
        .unwrap();
    assert_eq!(received, 600_000);
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, vec![7; 600_000]);
    let error = engine.save(hello, &file, 599_999, &mut |_| {}).unwrap_err();
    assert!(matches!(error, EngineError::TooLarge(599_999)), "{error}");
}

#[test]
fn the_first_socket_that_answers_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = directory.path().to_str().unwrap();
    std::fs::create_dir(directory.path().join("podman")).unwrap();
    // Left behind by one that has ended.
    drop(std::os::unix::net::UnixListener::bind(directory.path().join("docker.sock")).unwrap());
    let _server = Server::on_socket(&directory.path().join("podman/podman.sock"), |_| {
        Answer::new(200, "OK")
    });

    let engine = find(&[("XDG_RUNTIME_DIR", runtime)]).unwrap().unwrap();
    assert_eq!(engine.address(), format!("{runtime}/podman/podman.sock"));
}

#[test]
fn an_engine_that_is_named_must_be_there() {
    for address in ["ssh://me@host", "host:2375", "tcp://host/path", ""] {
        let error = find(&[("DOCKER_HOST", address)]).unwrap_err();
        assert!(matches!(error, EngineError::Address(_)), "{error}");
    }
    let error = find(&[("DOCKER_HOST", "unix:///nonexistent/docker.sock")]).unwrap_err();
    assert!(matches!(error, EngineError::Unreachable { .. }), "{error}");
    let server = Server::start(|_| Answer::new(200, "OK"));
    find(&[("DOCKER_HOST", &format!("tcp://{}", server.host()))])
        .unwrap()
        .unwrap();
}

#[test]
fn tls_is_never_left_out_where_it_was_asked_for() {
    let address = format!("https://127.0.0.1:{}", closed_port());
    let error = find(&[("DOCKER_HOST", &address)]).unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");

    let server = Server::start(|_| Answer::new(200, "OK"));
    let address = format!("tcp://{}", server.host());
    for place in ["HOME", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "ANOTHER"] {
        let variables = [
            ("DOCKER_HOST", &*address),
            ("DOCKER_TLS_VERIFY", "1"),
            (place, "/nonexistent"),
        ];
        let error = find(&variables).unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
    assert!(server.requests().is_empty());
}
