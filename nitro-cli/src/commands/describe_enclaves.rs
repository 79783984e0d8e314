//! `describe-enclaves`: the running enclaves as a JSON array, `[]` if there is none; with `--metadata` also what their images
//! say of themselves; with `--ended`, which AWS does not have, those that have ended lately.

use api::{EnclaveDescription, EnclaveFlags, EnclaveRunInfo, EndedEnclave, Reply, Request};
use serde::Serialize;

use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::image_metadata::{self, FlatMetadata, flatten};
use crate::output;

pub(super) fn execute(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::DescribeEnclaves, None)? {
        Reply::Enclaves(enclaves) => output::print_json(&enclaves),
        _ => Err(unexpected_answer().into()),
    }
}

pub(super) fn execute_with_metadata(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    let Reply::RunningImages(images) = daemon.ask(&Request::DescribeImages, None)? else {
        return Err(unexpected_answer().into());
    };
    let metadata = images
        .iter()
        .map(|image| image.metadata.as_deref().map(image_metadata::parse).transpose());
    let metadata = metadata.collect::<Result<Vec<_>, _>>()?;
    let described = images
        .iter()
        .zip(&metadata)
        .map(|(image, metadata)| WithMetadata {
            enclave: &image.enclave,
            image_name: metadata.as_ref().map(|metadata| metadata.image_name.as_str()),
            image_version: metadata.as_ref().map(|metadata| metadata.image_version.as_str()),
            // One image with metadata of a kind that has no keys does not keep the others from being listed.
            metadata: metadata.as_ref().and_then(|metadata| flatten(metadata).ok()),
        });
    output::print_json(&described.collect::<Vec<_>>())
}

/// An enclave and its image, in AWS's order of keys.
#[derive(Serialize)]
struct WithMetadata<'a> {
    #[serde(flatten)]
    enclave: &'a EnclaveDescription,
    #[serde(rename = "ImageName", skip_serializing_if = "Option::is_none")]
    image_name: Option<&'a str>,
    #[serde(rename = "ImageVersion", skip_serializing_if = "Option::is_none")]
    image_version: Option<&'a str>,
    #[serde(rename = "Metadata", skip_serializing_if = "Option::is_none")]
    metadata: Option<FlatMetadata<'a>>,
}

pub(super) fn execute_ended(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    match daemon.ask(&Request::EndedEnclaves, None)? {
        Reply::Ended(enclaves) => {
            output::print_json(&enclaves.into_iter().map(Shown::from).collect::<Vec<_>>())
        }
        _ => Err(unexpected_answer().into()),
    }
}

/// An ended enclave as it is printed: times for people.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    run: EnclaveRunInfo,
    #[serde(rename = "Flags")]
    flags: EnclaveFlags,
    #[serde(rename = "Reason")]
    reason: String,
    #[serde(rename = "ExitCode")]
    exit_code: Option<u16>,
    #[serde(rename = "StartedAt")]
    started_at: String,
    #[serde(rename = "EndedAt")]
    ended_at: String,
    #[serde(rename = "Console")]
    console: Vec<String>,
}

impl From<EndedEnclave> for Shown {
    fn from(enclave: EndedEnclave) -> Self {
        let time = |milliseconds: u64| image::rfc3339(u32::try_from(milliseconds / 1000).unwrap_or(u32::MAX));
        Self {
            started_at: time(enclave.started_at),
            ended_at: time(enclave.ended_at),
            run: enclave.run,
            flags: enclave.flags,
            reason: enclave.reason,
            exit_code: enclave.exit_code,
            console: enclave.console,
        }
    }
}
