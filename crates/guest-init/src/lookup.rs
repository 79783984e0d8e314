//! Where the application's program is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The directories in which AWS's init looks for programs, whatever `PATH` the image sets.
pub(crate) const SYSTEM_PATH: &str = "/sbin:/usr/sbin:/bin:/usr/bin";

/// Finds `program`. A name with a slash is a path; any other is looked for in [`SYSTEM_PATH`] and then in the image's
/// own `PATH`.
///
/// The order makes an image start the same program here as on AWS; the image's `PATH` adds those that AWS would miss.
/// As in a shell, an executable file wins over one that is not; the latter is returned only for want of the former, so
/// that the caller can say what is wrong with it.
pub(crate) fn find(program: &OsStr, image_path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return path.symlink_metadata().is_ok().then_some(path);
    }
    if program.is_empty() {
        return None;
    }

    let search = [Some(OsStr::new(SYSTEM_PATH)), image_path];
    let files: Vec<PathBuf> = search
        .into_iter()
        .flatten()
        .flat_map(std::env::split_paths)
        .map(|directory| directory.join(program))
        .filter(|path| path.is_file())
        .collect();
    files
        .iter()
        .find(|path| is_executable(path))
        .or(files.first())
        .cloned()
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_system_directories_go_before_the_image_path() {
        let image = tempfile::tempdir().unwrap();
        file(&image.path().join("sh"), 0o755);
        let found = find(OsStr::new("sh"), Some(image.path().as_os_str())).unwrap();
        assert!(!found.starts_with(image.path()), "{found:?}");
    }

    #[test]
    fn the_image_path_adds_programs() {
        let image = tempfile::tempdir().unwrap();
        let program = image.path().join("only-in-the-image");
        file(&program, 0o755);
        assert_eq!(
            find(OsStr::new("only-in-the-image"), Some(image.path().as_os_str())),
            Some(program)
        );
        assert_eq!(find(OsStr::new("only-in-the-image"), None), None);
    }

    #[test]
    fn an_executable_file_wins_over_one_that_is_not() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = std::env::join_paths([first.path(), second.path()]).unwrap();
        file(&first.path().join("tool"), 0o644);
        assert_eq!(
            find(OsStr::new("tool"), Some(&path)),
            Some(first.path().join("tool"))
        );
        file(&second.path().join("tool"), 0o755);
        assert_eq!(
            find(OsStr::new("tool"), Some(&path)),
            Some(second.path().join("tool"))
        );
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let image = tempfile::tempdir().unwrap();
        let program = image.path().join("app");
        assert_eq!(find(program.as_os_str(), None), None);
        file(&program, 0o644);
        assert_eq!(find(program.as_os_str(), None), Some(program));
    }

    #[test]
    fn directories_and_the_empty_name_are_no_programs() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir(image.path().join("directory")).unwrap();
        assert_eq!(
            find(OsStr::new("directory"), Some(image.path().as_os_str())),
            None
        );
        assert_eq!(find(OsStr::new(""), Some(image.path().as_os_str())), None);
    }
}
