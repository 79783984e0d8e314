//! Which place in the source an address belongs to.

use std::path::{Component, Path, PathBuf};

use addr2line::{Loader, Location};

/// A place in a file of the checkout. The same place has several addresses: a function is compiled for each type that it is used with, and
/// wherever it is inlined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The file, relative to the checkout.
    pub(crate) file: String,
    /// Lines and columns, the innermost first: of what of other packages is inlined there, and there.
    positions: Vec<(u32, u32)>,
}

impl Place {
    /// The line in the file.
    pub(crate) fn line(&self) -> u32 {
        self.positions.last().map_or(0, |(line, _)| *line)
    }
}

/// The place of an address. Code of the standard library or of another package that was compiled into ours belongs to the file that calls
/// it; `None` for what is nobody's here.
pub(crate) fn of(program: &Loader, address: u64) -> Option<Place> {
    let checkout = plain(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let mut frames = program.find_frames(address).ok()?;
    let mut positions = Vec::new();
    // From what was inlined to what it was inlined into.
    while let Ok(Some(frame)) = frames.next() {
        let Some(location) = frame.location else {
            continue;
        };
        positions.push((
            location.line.unwrap_or_default(),
            location.column.unwrap_or_default(),
        ));
        if let Some(file) = file_in(&checkout, &location) {
            return Some(Place { file, positions });
        }
    }
    None
}

fn file_in(checkout: &Path, location: &Location<'_>) -> Option<String> {
    let file = plain(Path::new(location.file?));
    let file = file.strip_prefix(checkout).ok()?;
    Some(file.to_str()?.to_owned())
}

/// Without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}
