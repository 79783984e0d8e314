//! Where the image of `build-enclave` is: which of all places a name means.
//!
//! | name | place |
//! |---|---|
//! | `docker://NAME` | a registry |
//! | a path that exists, or one with `:NAME` appended | that file or directory |
//! | begins with `/` or `.` | only a path |
//! | any other | Docker or Podman on this machine, if it runs and has the image; else a registry, by Docker's rules: `docker.io/library/` and `:latest` may be left out |
//!
//! With `--docker-dir` the name is that of an image that an engine builds from there.

use std::ffi::OsStr;
use std::path::Path;

use api::{ErrorCode, Failure};
use image::{ImageError, Limits, Source};
use image_fetch::{Engine, EngineError, FetchError, Mirror, Reference, Registry, Settings};

use crate::arguments::BuildEnclave;
use crate::environment::{Environment, variable};
use crate::error::chain_of;
use crate::progress::{ProgressReport, Step};
use crate::{container_builder, output};

/// In front of a name that is not a path, whatever exists.
const REGISTRY: &str = "docker://";
/// Where blobs are kept below the directory of artifacts.
const CACHE: &str = "layers";

/// Finds the image that the options name. From a registry nothing is fetched yet; what a container engine has is put into a
/// file without a name in `temporary`.
///
/// # Errors
/// E48 if a path is no image, or the engine that `DOCKER_HOST` names is not there; E49 if an image cannot be built; E50 if a name is none, an engine does not give its image, or
/// credentials or certificates cannot be used; E51 if there is no place for what is fetched; E03 if a mirror is none.
pub(crate) fn find(
    options: &BuildEnclave,
    environment: &Environment,
    temporary: &Path,
    progress: &mut ProgressReport,
) -> Result<Source, Failure> {
    let text = options.docker_uri.to_string_lossy();
    if let Some(directory) = &options.docker_dir {
        let image = reference(&text)?;
        let epoch = environment.epoch()?.unwrap_or(0);
        let archive = container_builder::build(directory, &text, epoch, temporary, options.quiet)?;
        return Ok(Source::open_archive(archive, &image, &text));
    }
    if let Some(name) = text.strip_prefix(REGISTRY) {
        return in_registry(name, &reference(name)?, options, environment);
    }
    match Source::detect(&options.docker_uri) {
        Err(ImageError::NotFound(_)) if !is_path(&options.docker_uri) => {
            let image = reference(&text)?;
            match in_engine(&text, &image, temporary, progress)? {
                Some(source) => Ok(source),
                None => in_registry(&text, &image, options, environment),
            }
        }
        found => found.map_err(|error| build_failure(&text, &error)),
    }
}

/// What went wrong with an image.
pub(crate) fn build_failure(name: &str, error: &ImageError) -> Failure {
    match error {
        ImageError::Output(_) | ImageError::Write { .. } => {
            Failure::caused_by(ErrorCode::FileOperation, "Cannot create the output file", error)
        }
        ImageError::Fetch(error) => pull_failure(name, error),
        _ => Failure::caused_by(
            ErrorCode::EifBuilding,
            &format!("Cannot build an EIF from `{name}`"),
            error,
        ),
    }
}

fn pull_failure(name: &str, error: &FetchError) -> Failure {
    let name = name.strip_prefix(REGISTRY).unwrap_or(name);
    Failure::caused_by(
        ErrorCode::DockerImagePull,
        &format!("Cannot pull the image `{name}`"),
        error,
    )
}

/// A text that should have no user and password before its host, without them: it goes to a terminal and into a log.
fn without_password(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        // A digest follows an `@` as well, but no colon comes before it in a host.
        Some((user, host)) if user.contains(':') || !scheme.is_empty() => {
            format!("{scheme}***@{host}{path}")
        }
        _ => text.to_owned(),
    }
}

fn is_path(text: &OsStr) -> bool {
    text.to_string_lossy().starts_with(['/', '.'])
}

fn reference(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error| {
        Failure::caused_by(
            ErrorCode::DockerImagePull,
            &format!(
                "`{}` is neither a file or directory on this machine nor the name of an image in a registry, such as \
                 `registry.example/team/hello:v1`",
                without_password(name)
            ),
            &error,
        )
    })
}

/// The image, if a container engine runs here and has it.
fn in_engine(
    name: &str,
    image: &Reference,
    temporary: &Path,
    progress: &mut ProgressReport,
) -> Result<Option<Source>, Failure> {
    // The one that the user has named, or else any that is there.
    let engine = Engine::find(&variable).map_err(|error| {
        let context = "The container engine that DOCKER_HOST names cannot be asked";
        Failure::caused_by(ErrorCode::EifBuilding, context, &error)
    })?;
    let found = match engine {
        Some(engine) => engine.has(name).map(|has| has.then_some(engine)),
        None => Ok(None),
    };
    let engine = match found {
        Ok(Some(engine)) => engine,
        Ok(None) => return Ok(None),
        Err(error) => {
            // The registry may have it all the same.
            progress.clear();
            output::notice(format_args!("Warning: {}", chain_of(&error)));
            return Ok(None);
        }
    };
    progress.notice("Using the locally available Docker image...");
    let archive = tempfile::tempfile_in(temporary).map_err(|error| {
        let context = format!("Cannot create a temporary file in `{}`", temporary.display());
        Failure::caused_by(ErrorCode::FileOperation, &context, &error)
    })?;
    let limit = Limits::default().unpacked;
    let saved = engine.save(name, &archive, limit, &mut |received| {
        progress.show(Step::Receive { received });
    });
    saved.map_err(|error: EngineError| {
        let context = format!("Cannot take the image `{name}` from the container engine");
        Failure::caused_by(ErrorCode::DockerImagePull, &context, &error)
    })?;
    Ok(Some(Source::open_archive(archive, image, name)))
}

fn in_registry(
    name: &str,
    reference: &Reference,
    options: &BuildEnclave,
    environment: &Environment,
) -> Result<Source, Failure> {
    let artifacts = environment.artifacts.as_deref().ok_or_else(|| {
        Failure::new(
            ErrorCode::ArtifactsPathNotSet,
            "There is no directory for the layers of the image. Set NITRO_CLI_ARTIFACTS to one, or HOME",
        )
    })?;
    let repository = Registry::new(settings(artifacts, options)?)
        .repository(reference)
        .map_err(|error| pull_failure(name, &error))?;
    Ok(Source::registry(repository, name))
}

fn settings(artifacts: &Path, options: &BuildEnclave) -> Result<Settings, Failure> {
    let mut settings = Settings::of_environment(artifacts.join(CACHE), &variable);
    for file in &options.registry_ca {
        settings.trust(file.clone());
    }
    for text in &options.registry_mirror {
        let mirror = text.parse::<Mirror>().map_err(|error| {
            let text = without_password(text);
            let context = format!("The value `{text}` of `--registry-mirror` is not valid");
            Failure::caused_by(ErrorCode::InvalidArgument, &context, &error)
        })?;
        settings.mirrors.push(mirror);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_repeated() {
        for (text, shown) in [
            (
                "https://me:token@mirror.example/x",
                "https://***@mirror.example/x",
            ),
            ("https://token@mirror.example", "https://***@mirror.example"),
            ("me:token@registry.example/x", "***@registry.example/x"),
            ("registry.example/x:v1", "registry.example/x:v1"),
            ("hello@sha256:00", "hello@sha256:00"),
            (
                "registry.example:5000/x@sha256:00",
                "registry.example:5000/x@sha256:00",
            ),
        ] {
            assert_eq!(without_password(text), shown);
        }
    }
}
