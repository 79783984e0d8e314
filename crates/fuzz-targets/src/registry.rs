//! What is read of registries: names of images, and how a server wants to be convinced.

use image_fetch::{Challenge, Reference};

/// A name that is accepted is the same when it is written out, and has nothing that an address would have to escape.
pub(crate) fn check_reference(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    let whole = reference.to_string();
    assert_eq!(whole.parse::<Reference>().as_ref(), Ok(&reference), "{whole}");
    assert!(reference.tag().is_some() || reference.digest().is_some());
    let is_harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"/:@._-[]".contains(&byte);
    assert!(whole.bytes().all(is_harmless), "{whole}");
    // A tag may have dots in a row, but is never a step up.
    assert!(
        !whole.contains("//") && !reference.name().contains(".."),
        "{whole}"
    );
    assert!(reference.tag().is_none_or(|tag| !tag.starts_with('.')), "{whole}");
    assert!(!reference.host().contains('/') && reference.name().len() <= 255);
}

/// A challenge that is understood is understood again when it is written as the specification has it.
pub(crate) fn check_challenge(input: &[u8]) {
    let Ok(header) = std::str::from_utf8(input) else {
        return;
    };
    let challenges = Challenge::parse_all(header);
    assert!(
        challenges.len() <= header.len() / 5,
        "no challenge is shorter than `Basic`"
    );
    let written: Vec<String> = challenges.iter().map(written).collect();
    assert_eq!(
        Challenge::parse_all(&written.join(", ")),
        challenges,
        "{written:?}"
    );
}

fn written(challenge: &Challenge) -> String {
    let Challenge::Bearer {
        realm,
        service,
        scope,
    } = challenge
    else {
        return "Basic realm=\"x\"".to_owned();
    };
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = format!("Bearer realm=\"{}\"", quoted(realm));
    for (name, value) in [("service", service), ("scope", scope)] {
        if let Some(value) = value {
            text = format!("{text},{name}=\"{}\"", quoted(value));
        }
    }
    text
}
