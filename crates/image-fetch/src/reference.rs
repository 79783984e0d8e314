//! Names of images, as Docker's command line takes them: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry of names without a host.
const DEFAULT_HOST: &str = "docker.io";
/// What names of one part on [`DEFAULT_HOST`] are short for a part of.
const DEFAULT_PREFIX: &str = "library/";
/// The tag of names with neither tag nor digest.
const DEFAULT_TAG: &str = "latest";
/// Longest host and path together; Docker's limit.
const NAME_LIMIT: usize = 255;
/// Longest tag (OCI distribution specification).
const TAG_LIMIT: usize = 128;

/// The name of an image in a registry.
///
/// ```
/// use image_fetch::Reference;
///
/// let hello: Reference = "hello".parse().unwrap();
/// assert_eq!(hello.to_string(), "docker.io/library/hello:latest");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no name of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReferenceError {
    /// The part before the first slash.
    #[error("its host is not a name or address with an optional port")]
    Host,
    /// The part between host and tag.
    #[error(
        "its path may have lower-case letters and digits, with `.`, `_`, `__` or dashes between them, in parts separated by \
         slashes"
    )]
    Path,
    /// Host and path together.
    #[error("its name has more than {NAME_LIMIT} characters")]
    TooLong,
    /// The part after the colon.
    #[error(
        "its tag may have up to {TAG_LIMIT} letters, digits, `_`, `.` and `-`, and begins with none of the last two"
    )]
    Tag,
    /// The part after the at sign.
    #[error("its digest is not `sha256:` and 64, or `sha512:` and 128, lower-case hexadecimal digits")]
    Digest,
}

impl Reference {
    /// The registry, with its port if one is given: `docker.io`, `localhost:5000`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The path within the registry, such as `library/hello`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if there is no other and no digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, which then decides.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Host and path.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// What the manifest is asked for by: the digest, or else the tag.
    pub(crate) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_owned(),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).ok_or(ReferenceError::Digest)?)),
            None => (text, None),
        };
        // A colon before a slash is a port's.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag);
        }
        let (host, path) = split_host(name);
        if !is_host(host) {
            return Err(ReferenceError::Host);
        }
        let repository = if host == DEFAULT_HOST && !path.contains('/') {
            format!("{DEFAULT_PREFIX}{path}")
        } else {
            path.to_owned()
        };
        if !path.split('/').all(is_path_part) {
            return Err(ReferenceError::Path);
        }
        if host.len() + 1 + repository.len() > NAME_LIMIT {
            return Err(ReferenceError::TooLong);
        }
        let default_tag = || digest.is_none().then(|| DEFAULT_TAG.to_owned());
        Ok(Self {
            host: host.to_owned(),
            repository,
            tag: tag.map(str::to_owned).or_else(default_tag),
            digest,
        })
    }
}

/// The whole name, with nothing left out.
impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(formatter, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first part is a host if it cannot be part of a path, or is `localhost`.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", path)) => (DEFAULT_HOST, path),
        Some((host, path))
            if host == "localhost"
                || host.contains(['.', ':'])
                || host.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (host, path)
        }
        _ => (DEFAULT_HOST, name),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(is_inner)
    };
    let is_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_label),
    };
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    is_name && port.is_none_or(is_port)
}

/// Letters and digits, with a separator between any two runs of them.
fn is_path_part(part: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_well = bytes.first().is_some_and(is_letter) && bytes.last().is_some_and(is_letter);
    let mut separators =
        part.split(|character: char| character.is_ascii_lowercase() || character.is_ascii_digit());
    ends_well
        && separators.all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_LIMIT
        && tag.bytes().next().is_some_and(is_word)
        && tag
            .bytes()
            .all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn names_are_completed_as_docker_completes_them() {
        let cases = [
            ("hello", "docker.io/library/hello:latest"),
            ("hello:v1", "docker.io/library/hello:v1"),
            ("team/hello", "docker.io/team/hello:latest"),
            ("docker.io/hello", "docker.io/library/hello:latest"),
            ("index.docker.io/library/hello", "docker.io/library/hello:latest"),
            ("localhost/hello", "localhost/hello:latest"),
            ("localhost:5000/hello:v1", "localhost:5000/hello:v1"),
            ("registry.example/a/b/c:1.2-3_4", "registry.example/a/b/c:1.2-3_4"),
            ("[::1]:5000/hello", "[::1]:5000/hello:latest"),
            ("a__b/c-----d/e.f", "docker.io/a__b/c-----d/e.f:latest"),
            ("Registry/hello", "Registry/hello:latest"),
        ];
        for (text, whole) in cases {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), whole, "{text}");
        }
    }

    #[test]
    fn a_digest_decides_and_needs_no_tag() {
        let pinned: Reference = format!("hello@{DIGEST}").parse().unwrap();
        assert_eq!((pinned.tag(), pinned.selector()), (None, DIGEST.to_owned()));
        let both: Reference = format!("hello:v1@{DIGEST}").parse().unwrap();
        assert_eq!((both.tag(), both.selector()), (Some("v1"), DIGEST.to_owned()));
        assert_eq!(both.to_string(), format!("docker.io/library/hello:v1@{DIGEST}"));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_part_at_fault() {
        use ReferenceError::{Digest, Host, Path, Tag, TooLong};
        let long = "a".repeat(250);
        let cases = [
            ("", Path),
            ("Hello", Path),
            ("a//b", Path),
            ("/a", Path),
            ("a/", Path),
            ("../a", Host),
            ("a..b", Path),
            ("a___b", Path),
            ("-a", Path),
            ("a_", Path),
            ("a b", Path),
            ("hellö", Path),
            ("host.example:/a", Host),
            ("host.example:0/a", Host),
            ("host.example:65536/a", Host),
            ("host.example:+1/a", Host),
            ("-x.example/a", Host),
            ("user@host.example/a", Digest),
            ("[::1/a", Host),
            ("a:", Tag),
            ("a:-v", Tag),
            ("a:v/1", Host),
            ("a:v?x", Tag),
            ("a@sha256:12", Digest),
            (&long, TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Reference>(), Err(error), "{text}");
        }
        assert_eq!(format!("a:{}", "v".repeat(129)).parse::<Reference>(), Err(Tag));
    }

    proptest! {
        #[test]
        fn a_whole_name_is_the_name_of_the_same_image(text in "[a-zA-Z0-9._/:@-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
