//! Names of entries, cleaned.

use std::fmt;

use super::TreeError;

/// The longest name that Linux opens (`PATH_MAX`, without the NUL).
const LONGEST: usize = 4095;

/// A name relative to the root of the image, without empty components, `.` or `..`. The root's own name is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreePath(Vec<u8>);

impl TreePath {
    /// Cleans a name as it stands in a layer: leading slashes are dropped, `a/../b` is `b`.
    pub(crate) fn parse(name: &[u8]) -> Result<Self, TreeError> {
        if name.contains(&0) {
            return Err(TreeError::Name);
        }
        let mut components: Vec<&[u8]> = Vec::new();
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    components.pop().ok_or(TreeError::Escapes)?;
                }
                _ => components.push(component),
            }
        }
        let path = components.join(&b'/');
        if path.len() > LONGEST {
            Err(TreeError::Name)
        } else {
            Ok(Self(path))
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name of the directory and the last component; `None` for the root.
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        })
    }

    /// The name with another last component.
    pub(crate) fn with_name(&self, name: &[u8]) -> Self {
        match self.split() {
            Some((parent, _)) if !parent.is_empty() => Self([parent, b"/", name].concat()),
            _ => Self(name.to_vec()),
        }
    }

    /// The directory that the name is in; the root's is the root.
    pub(crate) fn parent(&self) -> Self {
        Self(
            self.split()
                .map(|(parent, _)| parent.to_vec())
                .unwrap_or_default(),
        )
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "/{}", self.0.escape_ascii())
    }
}
