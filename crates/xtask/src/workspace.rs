//! Where things are: the checkout, what is built from it, and what outlives it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, at};

/// The directories everything else is found in.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    output: PathBuf,
    cache: PathBuf,
}

impl Workspace {
    /// The checkout this program was built from.
    pub(crate) fn find() -> Result<Self, Error> {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = crates.and_then(Path::parent).unwrap_or(Path::new(".")).to_owned();
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |path| root.join(path));
        let cache = match (env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            (Some(directory), _) if !directory.is_empty() => PathBuf::from(directory),
            (_, Some(home)) if !home.is_empty() => Path::new(&home).join(".cache"),
            _ => return Err(Error::NoCache),
        };
        let workspace = Self {
            root,
            output: target.join("xtask"),
            cache: cache.join("enclaved"),
        };
        for directory in [&workspace.output, &workspace.cache] {
            fs::create_dir_all(directory).map_err(at("create", directory))?;
        }
        Ok(workspace)
    }

    /// A checkout of its own for a test, all of it below `directory`.
    #[cfg(test)]
    pub(crate) fn below(directory: &Path) -> Self {
        let [root, output, cache] = ["root", "output", "cache"].map(|name| directory.join(name));
        for directory in [&root, &output, &cache] {
            fs::create_dir_all(directory).expect("create a directory");
        }
        Self { root, output, cache }
    }

    /// A file of the checkout.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The checkout.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Something that is built from this checkout and can be built again quickly; removed by `cargo clean`.
    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.output.join(name)
    }

    /// What takes minutes to make and depends on little: kernels, downloads, tools. Shared by all checkouts of a user.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The log of a step.
    pub(crate) fn log(&self, step: &str) -> PathBuf {
        self.output.join(format!("{step}.log"))
    }
}
