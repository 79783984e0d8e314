//! Files that several runs of this program, or several of its threads, take turns with.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, at};

/// Waits until nobody else has the lock; released when dropped.
pub(crate) fn exclusive(path: &Path) -> Result<File, Error> {
    let file = File::create(path).map_err(at("create", path))?;
    file.lock().map_err(at("lock", path))?;
    Ok(file)
}
