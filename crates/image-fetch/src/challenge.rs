//! How a registry wants to be convinced: the header `WWW-Authenticate` of an answer with status 401 (RFC 9110, 11.6.1).

/// Parameters that a challenge may have; registries send three.
const PARAMETER_LIMIT: usize = 32;

/// One way to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A token from another server.
    Bearer {
        /// Where tokens are to be had: an URL.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what: `repository:library/hello:pull`.
        scope: Option<String>,
    },
    /// Name and password.
    Basic,
}

impl Challenge {
    /// The challenges in a header that can be met here, in their order. What is not well formed ends the list.
    pub fn parse_all(header: &str) -> Vec<Self> {
        let mut challenges = Vec::new();
        let mut rest = header;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let Some((scheme, after)) = split_token(rest) else {
                return challenges;
            };
            let (parameters, after) = parameters(after);
            challenges.extend(Self::new(scheme, parameters));
            rest = after;
        }
    }

    fn new(scheme: &str, parameters: Vec<(&str, String)>) -> Option<Self> {
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        for (name, value) in parameters {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "service" => service = Some(value),
                "scope" => scope = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer {
            realm: realm?,
            service,
            scope,
        })
    }
}

/// `name=value` pairs separated by commas, as far as they go: a name without an equals sign is the next challenge's scheme.
fn parameters(text: &str) -> (Vec<(&str, String)>, &str) {
    let mut found = Vec::new();
    let mut rest = text;
    while found.len() < PARAMETER_LIMIT {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, value)) = split_token(start)
            .and_then(|(name, after)| Some((name, after.trim_start().strip_prefix('=')?.trim_start())))
        else {
            break;
        };
        let Some((value, after)) = split_value(value) else {
            // The rest cannot be understood.
            return (found, "");
        };
        found.push((name, value));
        rest = after;
    }
    (found, rest)
}

/// A token or a string in quotes, in which a backslash stands before a character that is meant as it is.
fn split_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = split_token(text)?;
        return Some((token.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            _ => value.push(character),
        }
    }
    None
}

/// The longest token at the start (RFC 9110, 5.6.2); none if there is none.
fn split_token(text: &str) -> Option<(&str, &str)> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text
        .bytes()
        .position(|byte| !is_token(byte))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn what_registries_send_is_understood() {
        let token = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let cases = [
            (
                token,
                vec![bearer(
                    "https://auth.example/token",
                    Some("registry.example"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"Basic realm="Registry""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"BEARER Realm = "https://x" "#,
                vec![bearer("https://x", None, None)],
            ),
            (
                r#"Negotiate, Digest realm="a, Basic", Basic realm="b", Bearer realm="https://c""#,
                vec![Challenge::Basic, bearer("https://c", None, None)],
            ),
            (r#"Bearer realm="a\"b\\c""#, vec![bearer("a\"b\\c", None, None)]),
            (
                r"Bearer realm=plain,service=x",
                vec![bearer("plain", Some("x"), None)],
            ),
        ];
        for (header, challenges) in cases {
            assert_eq!(Challenge::parse_all(header), challenges, "{header}");
        }
    }

    #[test]
    fn what_is_not_well_formed_is_no_challenge() {
        for header in [
            "",
            ", ,",
            "=x",
            "\"Basic\"",
            "Bearer",
            "Bearer service=x",
            "Bearer realm=\"open",
            "Bearer realm=",
        ] {
            assert_eq!(Challenge::parse_all(header), [], "{header}");
        }
    }
}
