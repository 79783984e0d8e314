//! Which file of the checkout an address belongs to.

use std::path::{Component, Path, PathBuf};

use addr2line::Loader;

/// The file, relative to the checkout. Code of the standard library or of another package that was compiled into ours belongs to the file
/// that calls it; `None` for what is nobody's here.
pub(crate) fn of(program: &Loader, address: u64) -> Option<String> {
    let checkout = plain(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let mut frames = program.find_frames(address).ok()?;
    // From what was inlined to what it was inlined into.
    while let Ok(Some(frame)) = frames.next() {
        let file = frame.location.and_then(|location| location.file).map(Path::new);
        let ours = file.and_then(|file| Some(plain(file).strip_prefix(&checkout).ok()?.to_owned()));
        if let Some(ours) = ours {
            return ours.into_os_string().into_string().ok();
        }
    }
    None
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
