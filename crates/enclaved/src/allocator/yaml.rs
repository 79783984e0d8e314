//! A YAML document as a tree, before anything is expected of it.
//!
//! The tree is built without a schema so that every message about it can be ours. What makes YAML dangerous is switched
//! off: anchors and aliases, which can make a small file a large tree, merge keys, keys that come twice, deep nesting.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, MergeKeyPolicy, SnippetMode, UserMessageFormatter};

use crate::printable::printable;

/// Collections within collections. A list of reservations needs two.
const MAX_DEPTH: usize = 8;

/// Keys, values and collections. Each takes a byte or more of a file that is bounded already.
const MAX_NODES: usize = 64 << 10;

/// The most characters of a file's text that a message repeats.
const MAX_SHOWN: usize = 60;

/// A part of a document.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// No value, or `null`.
    Nothing,
    /// A number that is whole and not negative.
    Number(u64),
    /// Any other number, or a truth value, as it is called in messages.
    Other(String),
    /// Text, quoted or not.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Keys and their values, in the document's order.
    Map(Vec<(Self, Self)>),
}

/// Why a text cannot be made a tree.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Not YAML.
    #[error("it is no YAML: {0}")]
    Syntax(String),
    /// An anchor, an alias or a merge key.
    #[error("anchors (&), aliases (*) and merge keys (<<) are not supported; write the values out")]
    Reference,
    /// A key comes twice.
    #[error("a key comes twice: {0}; remove one of the two")]
    Twice(String),
    /// More than one document.
    #[error("it has several documents; remove all `---` lines but the first")]
    SeveralDocuments,
    /// Deeper or larger than a configuration.
    #[error("it is nested too deeply or has too many values for a configuration; see the example of --help")]
    TooComplex,
}

/// The document of `bytes`; [`Node::Nothing`] if there is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<Node, YamlError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_merge_keys: 0,
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
        },
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    };
    serde_saphyr::from_slice_with_options(bytes, options).map_err(|error| classify(&error))
}

fn classify(error: &Error) -> YamlError {
    let said = || {
        let options = serde_saphyr::render_options! {
            formatter: &UserMessageFormatter,
            snippets: SnippetMode::Off,
        };
        let text = printable(error.render_with_options(options).as_bytes());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    match error.without_snippet() {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. } | BudgetBreach::MergeKeys { .. } => {
                YamlError::Reference
            }
            _ => YamlError::TooComplex,
        },
        Error::MergeKeyNotAllowed { .. } | Error::UnknownAnchor { .. } => YamlError::Reference,
        Error::MultipleDocuments { .. } => YamlError::SeveralDocuments,
        Error::DuplicateMappingKey { .. } => YamlError::Twice(said()),
        _ => YamlError::Syntax(said()),
    }
}

impl Node {
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Text(text) => text.trim().is_empty(),
            _ => false,
        }
    }

    pub(crate) fn is_text(&self, expected: &str) -> bool {
        matches!(self, Self::Text(text) if text == expected)
    }

    /// The number it is, in quotes or not.
    pub(crate) fn whole_number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        }
    }
}

/// How messages call it.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Other(text) => f.write_str(text),
            Self::Text(text) => {
                let shown: String = text.chars().take(MAX_SHOWN).collect();
                let more = if shown.len() < text.len() { "…" } else { "" };
                write!(f, "{shown:?}{more}")
            }
            Self::List(_) => f.write_str("a list"),
            Self::Map(_) => f.write_str("a group of keys"),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a configuration")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Other(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(u64::try_from(value).map_or_else(|_| Node::Other(value.to_string()), Node::Number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Other(format!("{value:?}")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Node::Map(pairs))
    }
}
