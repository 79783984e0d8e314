//! The driver of the Nitro Security Module, for ramdisks whose kernel has it as a module.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::error::Error;

/// Loads the module and deletes its file. No file: the kernel has the driver built in.
pub(crate) fn load_if_present(path: &Path) -> Result<(), Error> {
    let module = match File::open(path) {
        Ok(module) => module,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::at("open", path)(error)),
    };
    match finit_module(&module, c"", 0) {
        // A ramdisk made for one kernel and started with another may bring a module that the kernel has built in.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::at("load the kernel module", path)(errno)),
    }
    fs::remove_file(path).map_err(Error::at("delete", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramdisk_without_the_module_is_fine() {
        let directory = tempfile::tempdir().unwrap();
        load_if_present(&directory.path().join("nsm.ko")).unwrap();
    }

    #[test]
    fn a_file_that_is_no_module_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nsm.ko");
        fs::write(&path, b"not a module").unwrap();
        let error = load_if_present(&path).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot load the kernel module "),
            "{error}"
        );
        assert!(error.to_string().ends_with("/nsm.ko"), "{error}");
    }
}
