//! What an image says of itself, which is not measured: read out of an EIF, and printed.
//!
//! `run-enclave` sends the text along with the image, and the daemon, which never looks into an EIF, keeps it as it is until
//! `describe-enclaves --metadata` asks for it. So the file may change or go in the meantime.

use std::collections::BTreeMap;
use std::fs::File;

use api::{ErrorCode, Failure, MAX_IMAGE_METADATA};
use eif::{BuildMetadata, Layout, Metadata, ReadAt};
use serde::Serialize;
use serde_json::Value;

/// The metadata of the EIF in `file`, of `size` bytes, as JSON that the daemon takes; without what the container engine has
/// said where that is too much. None of an image that has none or is none, which is for its VMM to say.
pub(crate) fn of_image(file: &File, size: u64) -> Option<String> {
    let layout = Layout::read(file, size).ok()?;
    let section = layout.metadata()?;
    // `Layout` has bounded it.
    let mut data = vec![0; usize::try_from(section.size).ok()?];
    file.read_exact_at(&mut data, section.offset).ok()?;
    let metadata = Metadata::parse(section, &data).ok()?;
    let fits = |metadata: &Metadata| {
        let text = serde_json::to_string(metadata).ok()?;
        (text.len() <= MAX_IMAGE_METADATA).then_some(text)
    };
    fits(&metadata).or_else(|| {
        fits(&Metadata {
            docker_info: None,
            ..metadata
        })
    })
}

/// What [`of_image`] has made.
///
/// # Errors
/// E17 if it is something else.
pub(crate) fn parse(text: &str) -> Result<Metadata, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::caused_by(
            ErrorCode::Serde,
            "The metadata of an image cannot be read",
            &error,
        )
    })
}

/// The builder's keys and then the user's, all at one level, as AWS's nitro-cli prints them.
#[derive(Serialize)]
pub(crate) struct FlatMetadata<'a> {
    #[serde(flatten)]
    build: &'a BuildMetadata,
    #[serde(rename = "DockerInfo")]
    docker_info: Option<&'a Value>,
    #[serde(flatten)]
    custom: BTreeMap<&'a str, &'a Value>,
}

/// Keys of [`FlatMetadata`] that the user's metadata must not pass itself off as.
const BUILDER_KEYS: [&str; 6] = [
    "BuildTime",
    "BuildTool",
    "BuildToolVersion",
    "OperatingSystem",
    "KernelVersion",
    "DockerInfo",
];

/// # Errors
/// E17 if the user's metadata has no keys to print.
pub(crate) fn flatten(metadata: &Metadata) -> Result<FlatMetadata<'_>, Failure> {
    let custom = match &metadata.custom_metadata {
        None => BTreeMap::new(),
        Some(Value::Object(custom)) => custom.iter().map(|(key, value)| (key.as_str(), value)).collect(),
        Some(_) => {
            return Err(Failure::new(
                ErrorCode::Serde,
                "The custom metadata of the EIF is not a JSON object, so there are no keys to print. \
                 Build the EIF again with an object in the metadata file",
            ));
        }
    };
    Ok(FlatMetadata {
        build: &metadata.build_metadata,
        docker_info: metadata.docker_info.as_ref(),
        custom: custom
            .into_iter()
            .filter(|(key, _)| !BUILDER_KEYS.contains(key))
            .collect(),
    })
}
