//! Which machines an image is for.

use std::fmt;

use serde::Deserialize;

/// Operating system and processor, in the words of Go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl Platform {
    pub(super) fn new(os: &str, architecture: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
        }
    }

    /// Whether enclaves can run it.
    pub(super) fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == "amd64"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |word: &str| {
            if word.is_empty() {
                "unknown".to_owned()
            } else {
                word.to_owned()
            }
        };
        write!(formatter, "{}/{}", known(&self.os), known(&self.architecture))
    }
}
