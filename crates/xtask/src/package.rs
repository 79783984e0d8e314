//! `cargo xtask package`: a Debian package of the static programs, what nitro-cli builds images from, and the units.
//!
//! The tree is staged below cargo's target directory and packed by `dpkg-deb`. Owners, modes, times and order of the
//! files do not depend on who builds it when: the same programs and version give the same bytes. `dist` holds what is
//! packed as it is.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use crate::apt;
use crate::error::{Error, at};
use crate::examples;
use crate::installation::{self, BLOBS, Installation};
use crate::lock;
use crate::process;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Version of the programs, first packaging of it.
pub(crate) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-1");

/// The same programs, packaged once more: to upgrade to.
pub(crate) const NEXT_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "-2");

/// What building it is called.
pub(crate) const STEP: &str = "Debian package";

/// 2024-01-01, the time of every file, unless the variable of the same name says otherwise
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
const SOURCE_DATE_EPOCH: &str = "1704067200";

/// Text files: name below `dist`, path in the package.
const FILES: [(&str, &str); 10] = [
    ("allocator.yaml", "etc/nitro_enclaves/allocator.yaml"),
    (
        "ci/boot-image.sh",
        "usr/share/doc/enclaved/examples/boot-image.sh",
    ),
    ("enclaved.service", "lib/systemd/system/enclaved.service"),
    ("enclaved.socket", "lib/systemd/system/enclaved.socket"),
    ("enclaved.sysusers.conf", "usr/lib/sysusers.d/enclaved.conf"),
    ("enclaved.tmpfiles.conf", "usr/lib/tmpfiles.d/enclaved.conf"),
    (
        "nitro-enclaves-allocator.service",
        "lib/systemd/system/nitro-enclaves-allocator.service",
    ),
    (
        "nitro-enclaves-vsock-proxy.service",
        "lib/systemd/system/nitro-enclaves-vsock-proxy.service",
    ),
    ("vsock-proxy.yaml", "etc/nitro_enclaves/vsock-proxy.yaml"),
    (
        "vsock-proxy-targets.yaml",
        "etc/nitro_enclaves/vsock-proxy-targets.yaml",
    ),
];

/// Where each shell looks for what `nitro-cli completions` prints.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/nitro-cli"),
    ("fish", "usr/share/fish/vendor_completions.d/nitro-cli.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_nitro-cli"),
];

const MANUAL_PAGES: &str = "usr/share/man/man1";

const MAINTAINER_SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

const DOCUMENTATION: &str = "usr/share/doc/enclaved";

/// `cargo xtask package`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The package's version
    #[arg(long, value_name = "VERSION", default_value = VERSION, value_parser = parse_version)]
    version: String,
    /// Directory for the package [default: xtask/packages in cargo's target directory]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// A version as it can stand in a file's name: an epoch (`1:`) is not supported.
fn parse_version(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".+-~".contains(c);
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a version begins with a digit; letters, digits and . + - ~ may follow".into())
    }
}

/// Builds everything and prints where the package is.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<ExitCode, Error> {
    let mut steps = Steps::new(installation::STEPS + 2);
    steps.quiet(apt::STEP, || apt::install(workspace))?;
    let installation = Installation::prepare(workspace, &mut steps)?;
    let output = arguments
        .output
        .clone()
        .unwrap_or_else(|| workspace.output("packages"));
    let package = steps.quiet(STEP, || {
        built(workspace, &installation, &arguments.version, &output)
    })?;
    println!("{}", package.display());
    Ok(ExitCode::SUCCESS)
}

/// Writes the package `enclaved_<version>_amd64.deb` to the directory `output`.
pub(crate) fn built(
    workspace: &Workspace,
    installation: &Installation,
    version: &str,
    output: &Path,
) -> Result<PathBuf, Error> {
    let _turn = lock::exclusive(&workspace.output("package.lock"))?;
    fs::create_dir_all(output).map_err(at("create", output))?;
    let stage = Stage::new(workspace, version)?;
    stage.programs(installation)?;
    stage.blobs(installation)?;
    stage.dist()?;
    stage.documentation()?;
    stage.manual_pages(&installation.programs.nitro_cli)?;
    stage.completions(&installation.programs.nitro_cli)?;
    stage.control()?;
    let package = output.join(format!("enclaved_{version}_amd64.deb"));
    let unfinished = package.with_extension("unfinished");
    let mut pack = tool("dpkg-deb");
    pack.args(["--root-owner-group", "-Zxz", "--build"]);
    stage.run(pack.arg(&stage.root).arg(&unfinished))?;
    // Another command may be reading an earlier one.
    fs::rename(&unfinished, &package).map_err(at("create", &package))?;
    Ok(package)
}

/// The package's tree while it is put together.
struct Stage<'a> {
    workspace: &'a Workspace,
    version: &'a str,
    root: PathBuf,
}

impl<'a> Stage<'a> {
    fn new(workspace: &'a Workspace, version: &'a str) -> Result<Self, Error> {
        let root = workspace.output("package");
        if root.exists() {
            fs::remove_dir_all(&root).map_err(at("remove", &root))?;
        }
        fs::create_dir_all(&root).map_err(at("create", &root))?;
        set_mode(&root, 0o755)?;
        Ok(Self {
            workspace,
            version,
            root,
        })
    }

    fn programs(&self, installation: &Installation) -> Result<(), Error> {
        for program in installation.programs.of_the_parent() {
            let name = program.file_name().unwrap_or_default();
            let path = self.place(&Path::new("usr/bin").join(name))?;
            self.run(tool("strip").arg("-o").arg(&path).arg(program))?;
            set_mode(&path, 0o755)?;
        }
        Ok(())
    }

    fn blobs(&self, installation: &Installation) -> Result<(), Error> {
        let directory = Path::new(BLOBS.trim_start_matches('/'));
        for blob in examples::BLOBS {
            let mode = if blob == "init" { 0o755 } else { 0o644 };
            self.copy(
                &installation.examples.blobs().join(blob),
                &directory.join(blob),
                mode,
            )?;
        }
        Ok(())
    }

    fn dist(&self) -> Result<(), Error> {
        for (name, path) in FILES {
            let source = self.workspace.file("dist").join(name);
            self.copy(&source, Path::new(path), 0o644)?;
        }
        Ok(())
    }

    fn documentation(&self) -> Result<(), Error> {
        let path = |name: &str| Path::new(DOCUMENTATION).join(name);
        let source = |name: &str| self.workspace.file(name);
        self.copy(&source("dist/debian/copyright"), &path("copyright"), 0o644)?;
        for name in ["operating.md", "vsock.md"] {
            self.copy(&source("docs").join(name), &path(name), 0o644)?;
        }
        self.copy(&source("CHANGELOG.md"), &path("changelog"), 0o644)?;
        self.write(&path("changelog.Debian"), &self.debian_changelog()?, 0o644)?;
        let mut gzip = tool("gzip");
        gzip.args(["-9", "--no-name"]);
        for name in ["changelog", "changelog.Debian"] {
            gzip.arg(self.root.join(path(name)));
        }
        self.run(&mut gzip)
    }

    /// Of the program and each of its commands, as it writes them itself.
    fn manual_pages(&self, nitro_cli: &Path) -> Result<(), Error> {
        let directory = self.place(&Path::new(MANUAL_PAGES).join("page"))?;
        let directory = directory.parent().unwrap_or(&self.root);
        self.run(Command::new(nitro_cli).arg("man-pages").arg(directory))?;
        let mut gzip = tool("gzip");
        gzip.args(["-9", "--no-name"]);
        for page in self.files()?.iter().filter(|file| file.starts_with(MANUAL_PAGES)) {
            let page = self.root.join(page);
            set_mode(&page, 0o644)?;
            gzip.arg(page);
        }
        self.run(&mut gzip)
    }

    fn completions(&self, nitro_cli: &Path) -> Result<(), Error> {
        for (shell, path) in COMPLETIONS {
            let mut command = Command::new(nitro_cli);
            command.args(["completions", shell]);
            let script = process::captured(&mut command, &self.log())?;
            self.write(Path::new(path), &script, 0o644)?;
        }
        Ok(())
    }

    fn debian_changelog(&self) -> Result<String, Error> {
        let mut date = tool("date");
        date.args(["--utc", "--rfc-email", "--date"])
            .arg(format!("@{}", source_date_epoch()));
        let date = process::captured(&mut date, &self.log())?;
        Ok(format!(
            "enclaved ({}) unstable; urgency=medium\n\n  * What changed is in changelog.gz.\n\n -- {}  {date}",
            self.version,
            self.field("Maintainer")?
        ))
    }

    /// The `DEBIAN` directory, when everything else is there.
    fn control(&self) -> Result<(), Error> {
        let files = self.files()?;
        let mut conffiles = String::new();
        for file in files.iter().filter(|file| file.starts_with("etc")) {
            // Writing to a String cannot fail.
            let _ = writeln!(conffiles, "/{}", file.display());
        }
        let mut sums = tool("md5sum");
        sums.args(&files).current_dir(&self.root);
        let sums = process::captured(&mut sums, &self.log())?;

        let size = self.installed_size(&files)?.to_string();
        let control = self.control_fields()?;
        let control = control
            .replace("@VERSION@", self.version)
            .replace("@SIZE@", &size);
        let path = |name: &str| Path::new("DEBIAN").join(name);
        self.write(&path("control"), &control, 0o644)?;
        self.write(&path("md5sums"), &sums, 0o644)?;
        if !conffiles.is_empty() {
            self.write(&path("conffiles"), &conffiles, 0o644)?;
        }
        for script in MAINTAINER_SCRIPTS {
            let source = self.workspace.file("dist/debian").join(script);
            self.copy(&source, &path(script), 0o755)?;
        }
        Ok(())
    }

    /// The control file, with names for what is known only now.
    fn control_fields(&self) -> Result<String, Error> {
        let path = self.workspace.file("dist/debian/control");
        fs::read_to_string(&path).map_err(at("read", &path))
    }

    fn field(&self, name: &str) -> Result<String, Error> {
        let fields = self.control_fields()?;
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(": ").map(String::from);
        Ok(fields.lines().find_map(value).unwrap_or_default())
    }

    /// In KiB, each file rounded up, as dpkg estimates it.
    fn installed_size(&self, files: &[PathBuf]) -> Result<u64, Error> {
        let mut total = 0;
        for file in files {
            let path = self.root.join(file);
            total += fs::metadata(&path)
                .map_err(at("read", &path))?
                .len()
                .div_ceil(1024);
        }
        Ok(total)
    }

    /// Every file that is staged, sorted, relative to the root.
    fn files(&self) -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).map_err(at("read", &directory))? {
                let path = entry.map_err(at("read", &directory))?.path();
                if path.is_dir() {
                    directories.push(path);
                } else if let Ok(relative) = path.strip_prefix(&self.root) {
                    files.push(relative.to_owned());
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    /// Where `path` of the package is staged. Directories above it are made, for everybody to enter.
    fn place(&self, path: &Path) -> Result<PathBuf, Error> {
        let place = self.root.join(path);
        let mut missing = Vec::new();
        let above = place.ancestors().skip(1);
        missing.extend(above.take_while(|directory| !directory.exists()));
        for directory in missing.into_iter().rev() {
            fs::create_dir(directory).map_err(at("create", directory))?;
            set_mode(directory, 0o755)?;
        }
        Ok(place)
    }

    fn copy(&self, source: &Path, path: &Path, mode: u32) -> Result<(), Error> {
        let place = self.place(path)?;
        fs::copy(source, &place).map_err(at("copy", source))?;
        set_mode(&place, mode)
    }

    fn write(&self, path: &Path, text: &str, mode: u32) -> Result<(), Error> {
        let place = self.place(path)?;
        fs::write(&place, text).map_err(at("write", &place))?;
        set_mode(&place, mode)
    }

    fn run(&self, command: &mut Command) -> Result<(), Error> {
        process::logged(command, &self.log())
    }

    fn log(&self) -> PathBuf {
        self.workspace.log("package")
    }
}

/// A program whose output depends neither on the locale nor on the time.
fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C.UTF-8")
        .env("SOURCE_DATE_EPOCH", source_date_epoch());
    command
}

fn source_date_epoch() -> String {
    std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| SOURCE_DATE_EPOCH.into())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("change the mode of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_file_names() {
        for good in [VERSION, "1", "0.1.0-1", "2.0~rc1+git5-1"] {
            assert_eq!(parse_version(good).as_deref(), Ok(good));
        }
        for wrong in ["", "v1", "1:2", "1/2", "1 2", "1_2"] {
            assert!(parse_version(wrong).is_err(), "{wrong}");
        }
    }
}
