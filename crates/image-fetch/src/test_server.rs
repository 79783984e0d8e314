//! An HTTP server for tests, on a loopback address or a Unix socket: a function from requests to answers, and a list of the
//! requests that came.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

/// What came. Names of headers are in lower case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What goes back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// The length that is announced, if it is not that of the body.
    pub(crate) announced: Option<usize>,
    /// Whether the connection stays open after the body.
    pub(crate) stalls: bool,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            announced: None,
            stalls: false,
        }
    }

    /// Keeps the client waiting after the body.
    pub(crate) fn stalling(mut self) -> Self {
        self.stalls = true;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// A server. It ends with the test.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    address: Option<SocketAddr>,
    requests: Arc<Mutex<Vec<Request>>>,
}

type Handler = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

impl Server {
    /// On a free port of 127.0.0.1.
    pub(crate) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: Some(listener.local_addr().unwrap()),
            requests: Arc::default(),
        };
        let (handler, requests): (Handler, _) = (Arc::new(handler), Arc::clone(&server.requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, requests) = (Arc::clone(&handler), Arc::clone(&requests));
                thread::spawn(move || serve(stream.unwrap(), &handler, &requests));
            }
        });
        server
    }

    /// On a Unix socket.
    pub(crate) fn on_socket(
        path: &Path,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (handler, kept): (Handler, _) = (Arc::new(handler), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &handler, &requests);
            }
        });
        Self {
            address: None,
            requests: kept,
        }
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        self.address.unwrap().to_string()
    }

    /// What came so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The paths and queries of what came so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .map(|request| request.target)
            .collect()
    }
}

fn serve(mut stream: impl Read + Write, handler: &Handler, requests: &Mutex<Vec<Request>>) {
    let Some(request) = read(&mut stream) else {
        // Whatever that was, such as the beginning of a TLS handshake. It may have gone already.
        let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nthis is HTTP");
        return;
    };
    requests.lock().unwrap().push(request.clone());
    let answer = handler(&request);
    let mut head = format!(
        "HTTP/1.1 {} Reason\r\nContent-Length: {}\r\nConnection: close\r\n",
        answer.status,
        answer.announced.unwrap_or(answer.body.len())
    );
    for (name, value) in &answer.headers {
        head = format!("{head}{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    // A client that has seen enough hangs up.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&answer.body));
    if answer.stalls {
        loop {
            thread::park();
        }
    }
}

/// `None` if it is not HTTP.
fn read(stream: &mut impl Read) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    words.next()?.strip_prefix("HTTP/1.")?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|text: &String| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        method,
        target,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

/// A port that nobody listens on.
pub(crate) fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
