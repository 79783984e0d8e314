//! AWS's own `eif_build`, which the tests of the EIF format compare with.

use std::path::PathBuf;

use crate::cargo::cargo;
use crate::error::Error;
use crate::process;
use crate::workspace::Workspace;

/// The version that the known answers in `crates/eif` come from.
const VERSION: &str = "0.2.1";

/// The environment variable that names it to tests.
pub(crate) const VARIABLE: &str = "EIF_BUILD_ORACLE";

/// Path of the program, installed unless that has been done before.
pub(crate) fn installed(workspace: &Workspace) -> Result<PathBuf, Error> {
    let root = workspace.cache().join(format!("eif_build-{VERSION}"));
    let program = root.join("bin/eif_build");
    if !program.exists() {
        let mut install = cargo(workspace, "install");
        install
            .args(["eif_build", "--locked", "--version", VERSION, "--root"])
            .arg(&root);
        process::logged(&mut install, &workspace.log("eif_build"))?;
    }
    Ok(program)
}
