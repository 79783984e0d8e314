//! Where the image of `build-enclave` is: which of all places a name means.
//!
//! | name | place |
//! |---|---|
//! | `docker://NAME` | a registry |
//! | a path that exists, or one with `:NAME` appended | that file or directory |
//! | begins with `/` or `.` | only a path |
//! | any other | a registry, by Docker's rules: `docker.io/library/` and `:latest` may be left out |

use std::ffi::OsStr;
use std::path::Path;

use api::{ErrorCode, Failure};
use image::{ImageError, Source};
use image_fetch::{FetchError, Mirror, Reference, Registry, Settings};

use crate::arguments::BuildEnclave;
use crate::environment::{Environment, variable};

/// In front of a name that is not a path, whatever exists.
const REGISTRY: &str = "docker://";
/// Where blobs are kept below the directory of artifacts.
const CACHE: &str = "layers";

/// Finds the image that the options name. Nothing is fetched yet.
///
/// # Errors
/// E48 if a path is no image; E50 if a name is none, or credentials or certificates cannot be used; E51 if there is no place
/// for what is fetched; E03 if a mirror is none.
pub(crate) fn find(options: &BuildEnclave, environment: &Environment) -> Result<Source, Failure> {
    let text = options.docker_uri.to_string_lossy();
    if let Some(name) = text.strip_prefix(REGISTRY) {
        return in_registry(name, &reference(name)?, options, environment);
    }
    match Source::detect(&options.docker_uri) {
        Err(ImageError::NotFound(_)) if !is_path(&options.docker_uri) => {
            in_registry(&text, &reference(&text)?, options, environment)
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

fn is_path(text: &OsStr) -> bool {
    text.to_string_lossy().starts_with(['/', '.'])
}

fn reference(name: &str) -> Result<Reference, Failure> {
    name.parse().map_err(|error| {
        Failure::caused_by(
            ErrorCode::DockerImagePull,
            &format!(
                "`{name}` is neither a file or directory on this machine nor the name of an image in a registry, such as \
                 `registry.example/team/hello:v1`"
            ),
            &error,
        )
    })
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
            let context = format!("The value `{text}` of `--registry-mirror` is not valid");
            Failure::caused_by(ErrorCode::InvalidArgument, &context, &error)
        })?;
        settings.mirrors.push(mirror);
    }
    Ok(settings)
}
