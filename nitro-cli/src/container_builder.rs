//! `--docker-dir`: has a container engine build an image from a Dockerfile, and takes the image from it.
//!
//! The engine's output goes to standard error as it comes, or with `--quiet` only if it fails. The image goes into a file without a
//! name, so that a build which is interrupted leaves nothing but what the engine keeps for itself.
//!
//! Files that are copied or made in the build get the time `SOURCE_DATE_EPOCH`, or 0, where the engine can do that: the same directory
//! then gives the same image on another day.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api::{ErrorCode, Failure};

/// How an engine builds, and how it writes an image to standard output as an archive of `docker save`. Arguments are separated
/// by spaces; `TAG`, `DIRECTORY` and `EPOCH` stand for what they say.
#[derive(Clone, Copy, Debug)]
struct Builder {
    program: &'static str,
    build: &'static str,
    save: &'static str,
}

/// In the order of preference: the first two need no daemon.
const BUILDERS: [Builder; 3] = [
    Builder {
        program: "buildah",
        build: "build --timestamp EPOCH --tag TAG DIRECTORY",
        save: "push --quiet TAG docker-archive:/dev/stdout",
    },
    Builder {
        program: "podman",
        build: "build --timestamp EPOCH --tag TAG DIRECTORY",
        save: "save --quiet --format docker-archive TAG",
    },
    Builder {
        program: "docker",
        build: "build --tag TAG DIRECTORY",
        save: "save TAG",
    },
];

/// Builds `directory` as the image `tag`. The archive is in `temporary`.
///
/// # Errors
/// E49 if there is no engine, or it fails.
pub(crate) fn build(
    directory: &Path,
    tag: &str,
    epoch: u32,
    temporary: &Path,
    is_quiet: bool,
) -> Result<File, Failure> {
    let epoch = epoch.to_string();
    let failure = |message: String| Failure::new(ErrorCode::DockerImageBuild, message);
    if !directory.join("Dockerfile").is_file() {
        return Err(failure(format!(
            "There is no `Dockerfile` in `{}`. Name the directory that has one with `--docker-dir`",
            directory.display()
        )));
    }
    // An absolute path is no option of the engine's, whatever its name.
    let directory = directory
        .canonicalize()
        .map_err(|error| failure(format!("Cannot open `{}`: {error}", directory.display())))?;
    let path = env::var_os("PATH").unwrap_or_default();
    let (builder, program) = BUILDERS
        .iter()
        .find_map(|builder| Some((builder, find_program(builder.program, &path)?)))
        .ok_or_else(|| {
            failure(
                "Nothing is installed that builds container images. Install buildah, podman or docker, or build the \
                 image elsewhere and name it with `--docker-uri`"
                    .to_owned(),
            )
        })?;
    let command = |template: &str| {
        let mut command = Command::new(&program);
        command.args(template.split(' ').map(|word| match word {
            "TAG" => OsStr::new(tag),
            "EPOCH" => OsStr::new(&epoch),
            "DIRECTORY" => directory.as_os_str(),
            word => OsStr::new(word),
        }));
        command
    };
    let name = builder.program;
    run(command(builder.build), None, is_quiet).map_err(|reason| {
        failure(format!(
            "`{name}` could not build `{}`: {reason}",
            directory.display()
        ))
    })?;
    let mut archive = tempfile::tempfile_in(temporary).map_err(|error| {
        let context = format!("Cannot create a temporary file in `{}`", temporary.display());
        Failure::caused_by(ErrorCode::FileOperation, &context, &error)
    })?;
    archive
        .try_clone()
        .map_err(|error| error.to_string())
        .and_then(|output| run(command(builder.save), Some(output), is_quiet))
        .and_then(|()| archive.rewind().map_err(|error| error.to_string()))
        .map_err(|reason| failure(format!("`{name}` built `{tag}` but could not write it: {reason}")))?;
    Ok(archive)
}

/// Runs an engine with its output on standard error, or in `output`.
fn run(mut command: Command, output: Option<File>, is_quiet: bool) -> Result<(), String> {
    let said = if is_quiet {
        Some(tempfile::tempfile().map_err(|error| error.to_string())?)
    } else {
        None
    };
    let messages = || -> io::Result<Stdio> {
        Ok(match &said {
            Some(file) => file.try_clone()?.into(),
            None => io::stderr().as_fd().try_clone_to_owned()?.into(),
        })
    };
    let status = messages()
        .and_then(|stderr| {
            let stdout = output.map_or_else(messages, |output| Ok(output.into()))?;
            command
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(stderr)
                .status()
        })
        .map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(());
    }
    if let Some(mut file) = said {
        // It is only shown.
        let _ = file
            .rewind()
            .and_then(|()| io::copy(&mut file, &mut io::stderr()));
    }
    Err(format!("it ended with {status}; what it said is above"))
}

/// Where a program is, as a shell finds it.
fn find_program(name: &str, path: &OsStr) -> Option<PathBuf> {
    let is_program =
        |path: &PathBuf| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    env::split_paths(path)
        .map(|directory| directory.join(OsString::from(name)))
        .find(is_program)
}
