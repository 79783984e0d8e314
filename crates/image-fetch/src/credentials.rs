//! Who pulls: the files that `docker login` and `podman login` write, and the programs that they name.
//!
//! ```json
//! {
//!   "auths": { "registry.example": { "auth": "bmFtZTpwYXNzd29yZA==" } },
//!   "credHelpers": { "other.example": "ecr-login" },
//!   "credsStore": "secretservice"
//! }
//! ```
//!
//! `auth` is `name:password` in Base64. A helper `x` is a program `docker-credential-x`: `get` as its argument and the registry
//! on standard input give `{"Username": …, "Secret": …}`.
//!
//! A registry is looked for in one file after the other. In each, a helper of its own comes first, then an entry of its own,
//! then the store. Podman's entries may be longer than a host: `registry.example/team` is for the images below; the longest
//! that fits is taken.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::reference::Reference;

/// Largest file, and most that a helper may say.
const LIMIT: u64 = 1 << 20;
/// What Docker calls its own registry in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The host that names of Docker's own registry have.
const DOCKER_HOST: &str = "docker.io";
/// The name with which a helper says that the secret is a token.
const TOKEN_NAME: &str = "<token>";

/// Who pulls. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password {
        name: String,
        password: Zeroizing<String>,
    },
    /// A token for tokens (OAuth 2).
    Identity(Zeroizing<String>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials")
    }
}

impl Credentials {
    /// The header `Authorization` of HTTP's Basic scheme; none for what is no password.
    pub(crate) fn basic(&self) -> Option<Zeroizing<String>> {
        match self {
            Self::Password { name, password } => {
                let pair = Zeroizing::new(format!("{name}:{}", **password));
                Some(Zeroizing::new(format!(
                    "Basic {}",
                    STANDARD.encode(pair.as_bytes())
                )))
            }
            Self::Identity(_) => None,
        }
    }
}

/// Why credentials that should be there cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read the credentials in `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The file is not what `docker login` writes. Where in it is said; what is in it is not.
    #[error("the credentials in `{}` are not valid JSON of Docker's form: line {line}, column {column}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// An `auth` that is not Base64 of a name and a password.
    #[error("the entry for `{entry}` in `{}` is damaged: log in again", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The registry.
        entry: String,
    },
    /// A helper cannot be started.
    #[error("cannot run the credential helper `{program}`, which `{}` names", path.display())]
    Helper {
        /// The file.
        path: PathBuf,
        /// The program.
        program: String,
        /// What failed.
        source: io::Error,
    },
    /// A helper failed.
    #[error("the credential helper `{program}` failed: {message}")]
    HelperFailed {
        /// The program.
        program: String,
        /// What it said.
        message: String,
    },
}

/// Where credentials are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CredentialFiles {
    /// From the first to be asked to the last.
    paths: Vec<PathBuf>,
}

impl CredentialFiles {
    /// The file of `REGISTRY_AUTH_FILE`; Docker's (`DOCKER_CONFIG`, which is its directory, or as AWS's nitro-cli has it the
    /// file, else `~/.docker/config.json`); Podman's.
    pub(crate) fn of_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        if let Some(file) = path("REGISTRY_AUTH_FILE") {
            return Self { paths: vec![file] };
        }
        let home = path("HOME");
        let docker = match path("DOCKER_CONFIG") {
            Some(file) if file.is_file() => Some(file),
            Some(directory) => Some(directory.join("config.json")),
            None => home.as_ref().map(|home| home.join(".docker/config.json")),
        };
        let configuration = path("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
        let podman = [path("XDG_RUNTIME_DIR"), configuration]
            .into_iter()
            .flatten()
            .map(|directory| directory.join("containers/auth.json"));
        Self {
            paths: docker.into_iter().chain(podman).collect(),
        }
    }

    /// The credentials for pulling an image, if there are any.
    pub(crate) fn find(&self, reference: &Reference) -> Result<Option<Credentials>, CredentialError> {
        for path in &self.paths {
            let Some(file) = ConfigurationFile::read(path)? else {
                continue;
            };
            if let Some(found) = file.find(path, reference)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationFile {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
struct Entry {
    auth: Option<Zeroizing<String>>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
    identitytoken: Option<Zeroizing<String>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Entry")
    }
}

impl ConfigurationFile {
    /// `None` if there is no such file.
    fn read(path: &Path) -> Result<Option<Self>, CredentialError> {
        let error = |source| CredentialError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(error(source)),
        };
        let bytes = read_limited(file).map_err(error)?;
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|wrong| CredentialError::Json {
                path: path.to_owned(),
                line: wrong.line(),
                column: wrong.column(),
            })
    }

    fn find(&self, path: &Path, reference: &Reference) -> Result<Option<Credentials>, CredentialError> {
        let keys = keys(reference);
        let helpers = self.cred_helpers.iter().flatten();
        for (registry, helper) in helpers {
            if keys.iter().any(|key| key == bare(registry)) {
                return ask_helper(path, helper, reference);
            }
        }
        for key in &keys {
            let entries = self.auths.iter().flatten();
            let entry = entries.filter(|(registry, _)| bare(registry) == key);
            for (registry, entry) in entry.filter_map(|(registry, entry)| Some((registry, entry.as_ref()?))) {
                let damaged = || CredentialError::Entry {
                    path: path.to_owned(),
                    entry: registry.clone(),
                };
                if let Some(found) = entry.credentials().map_err(|Damaged| damaged())? {
                    return Ok(Some(found));
                }
            }
        }
        self.creds_store
            .as_deref()
            .map_or(Ok(None), |helper| ask_helper(path, helper, reference))
    }
}

/// An entry that is no name and password.
struct Damaged;

impl Entry {
    /// `None` for the empty entry that stands where a helper has the secret.
    fn credentials(&self) -> Result<Option<Credentials>, Damaged> {
        let is_there = |text: &&Zeroizing<String>| !text.is_empty();
        if let Some(token) = self.identitytoken.as_ref().filter(is_there) {
            return Ok(Some(Credentials::Identity(token.clone())));
        }
        if let Some(encoded) = self.auth.as_ref().filter(is_there) {
            // Written by hand, it often has no padding.
            let lenient =
                GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let base64 = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
            let bytes = Zeroizing::new(base64.decode(encoded.trim()).map_err(|_| Damaged)?);
            let pair = std::str::from_utf8(&bytes).map_err(|_| Damaged)?;
            let (name, password) = pair.split_once(':').ok_or(Damaged)?;
            return Ok(Some(Credentials::Password {
                name: name.to_owned(),
                // Docker pads some with NULs.
                password: Zeroizing::new(password.trim_end_matches('\0').to_owned()),
            }));
        }
        Ok(match (&self.username, &self.password) {
            (Some(name), Some(password)) => Some(Credentials::Password {
                name: name.clone(),
                password: password.clone(),
            }),
            _ => None,
        })
    }
}

/// What an image's registry may be called, the longest first.
fn keys(reference: &Reference) -> Vec<String> {
    let name = reference.name();
    let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
    let mut keys: Vec<String> = ends.map(|end| name[..end].to_owned()).collect();
    keys.reverse();
    if reference.host() == DOCKER_HOST {
        keys.push("index.docker.io".to_owned());
    }
    keys
}

/// A key without what old versions of Docker put around a host.
fn bare(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: Zeroizing<String>,
}

fn ask_helper(
    path: &Path,
    helper: &str,
    reference: &Reference,
) -> Result<Option<Credentials>, CredentialError> {
    let program = format!("docker-credential-{helper}");
    let spawn_error = |source| CredentialError::Helper {
        path: path.to_owned(),
        program: program.clone(),
        source,
    };
    if helper.contains('/') {
        return Err(spawn_error(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(spawn_error)?;
    let server = match reference.host() {
        DOCKER_HOST => DOCKER_HUB,
        host => host,
    };
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it answers anyway, or fails.
        let _ = input.write_all(server.as_bytes());
    }
    let answer = child.stdout.take().map(read_limited).transpose();
    let status = child.wait().map_err(spawn_error)?;
    let answer = answer.map_err(spawn_error)?.unwrap_or_default();
    let failed = |message: String| CredentialError::HelperFailed {
        program: program.clone(),
        message,
    };
    if !status.success() {
        let said = String::from_utf8_lossy(&answer).trim().to_owned();
        // The words of the protocol.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        // Some print the secret all the same.
        if said.contains("Secret") {
            return Err(failed(format!("it ended with {status}")));
        }
        return Err(failed(crate::error::printable(&said)));
    }
    let answer: HelperAnswer = serde_json::from_slice(&answer)
        .map_err(|_| failed("its answer is not JSON with Username and Secret".to_owned()))?;
    Ok(Some(if answer.username == TOKEN_NAME {
        Credentials::Identity(answer.secret)
    } else {
        Credentials::Password {
            name: answer.username,
            password: answer.secret,
        }
    }))
}

/// What is to be read, if it is not too much. It is overwritten when it is dropped.
fn read_limited(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    source.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn password(name: &str, password: &str) -> Credentials {
        Credentials::Password {
            name: name.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        }
    }

    fn find(json: &str, reference: &str) -> Result<Option<Credentials>, CredentialError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, json).unwrap();
        CredentialFiles { paths: vec![path] }.find(&reference.parse().unwrap())
    }

    #[test]
    fn the_entry_of_the_registry_is_found_under_each_of_its_names() {
        for key in [
            "registry.example:5000",
            "https://registry.example:5000",
            "http://registry.example:5000/v2/",
        ] {
            let json = format!(r#"{{"auths": {{"{key}": {{"auth": "bWU6c2U6Y3JldA=="}}}}}}"#);
            let found = find(&json, "registry.example:5000/a/b:v1").unwrap();
            assert_eq!(found, Some(password("me", "se:cret")), "{key}");
            for other in ["registry.example/a", "registry.example:500/a", "hello"] {
                assert_eq!(find(&json, other).unwrap(), None, "{other}");
            }
        }
        for key in ["https://index.docker.io/v1/", "docker.io", "index.docker.io"] {
            let json = format!(r#"{{"auths": {{"{key}": {{"username": "me", "password": "x"}}}}}}"#);
            assert_eq!(find(&json, "hello").unwrap(), Some(password("me", "x")), "{key}");
        }
    }

    #[test]
    fn the_longest_entry_that_fits_is_taken() {
        let json = r#"{"auths": {
            "host.example": {"auth": "YToxCg"},
            "host.example/team": {"auth": "Yjox"},
            "host.example/team/app": {"auth": "Yzox"},
            "host.example/tea": {"auth": "ZDox"}
        }}"#;
        for (reference, name) in [
            ("host.example/other/app", "a"),
            ("host.example/team/web", "b"),
            ("host.example/team/app:v1", "c"),
        ] {
            let Some(Credentials::Password { name: found, .. }) = find(json, reference).unwrap() else {
                panic!("{reference}");
            };
            assert_eq!(found, name);
        }
    }

    #[test]
    fn tokens_are_told_from_passwords() {
        let json = r#"{"auths": {"h.example": {"auth": "MDAwOg==", "identitytoken": "abc"}}}"#;
        let found = find(json, "h.example/a").unwrap().unwrap();
        assert_eq!(found, Credentials::Identity(Zeroizing::new("abc".to_owned())));
        assert_eq!(found.basic(), None);
        assert_eq!(password("a", "b").basic().unwrap().as_str(), "Basic YTpi");
    }

    #[test]
    fn a_damaged_file_is_an_error_that_does_not_show_it() {
        for json in [
            r#"{"auths": {"h.example": {"auth": "secret!"}}}"#,
            r#"{"auths": {"h.example": {"auth": "c2VjcmV0"}}}"#,
            r#"{"auths": {"h.example": {"auth": ["secret"]}}}"#,
            r#"{"auths": "secret"}"#,
            "secret",
        ] {
            let error = find(json, "h.example/a").unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("secret") && text.contains("config.json"), "{text}");
        }
        assert_eq!(
            find(r#"{"auths": {"h.example": {}, "x": null}}"#, "h.example/a").unwrap(),
            None
        );
        let shown = format!(
            "{:?}",
            find(
                r#"{"auths": {"h.example": {"auth": "bWU6c2VjcmV0"}}}"#,
                "h.example/a"
            )
        );
        assert!(!shown.contains("secret") && !shown.contains("bWU6"), "{shown}");
    }

    #[test]
    fn a_helper_that_cannot_run_is_named() {
        let own = r#"{"credHelpers": {"h.example": "test-that-is-nowhere"}}"#;
        let error = find(own, "h.example/a").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`docker-credential-test-that-is-nowhere`"),
            "{error}"
        );
        assert_eq!(find(own, "other.example/a").unwrap(), None);
        let outside = r#"{"credsStore": "x/../../bin/true"}"#;
        assert!(matches!(
            find(outside, "h.example/a"),
            Err(CredentialError::Helper { .. })
        ));
    }

    #[test]
    fn files_are_where_docker_and_podman_have_them() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file.json");
        fs::write(&file, "{}").unwrap();
        let paths = |variables: &[(&str, &Path)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| value.as_os_str().to_owned())
            };
            CredentialFiles::of_environment(&variable).paths
        };
        let home = ("HOME", Path::new("/home/me"));
        assert!(paths(&[]).is_empty());
        assert_eq!(
            paths(&[home, ("XDG_RUNTIME_DIR", Path::new("/run/user/1"))]),
            [
                "/home/me/.docker/config.json",
                "/run/user/1/containers/auth.json",
                "/home/me/.config/containers/auth.json"
            ]
            .map(PathBuf::from)
        );
        assert_eq!(
            paths(&[home, ("DOCKER_CONFIG", Path::new("/etc/d"))])[0],
            Path::new("/etc/d/config.json")
        );
        assert_eq!(paths(&[home, ("DOCKER_CONFIG", &file)])[0], file);
        assert_eq!(paths(&[home, ("REGISTRY_AUTH_FILE", &file)]), [file.as_path()]);
    }
}
