//! `describe-enclaves`: the running enclaves as a JSON array, `[]` if there is none; with `--metadata` also what their images
//! say of themselves; with `--ended`, which AWS does not have, those that have ended lately.

use api::{EnclaveDescription, EnclaveFlags, EnclaveRunInfo, EndedEnclave, Reply, Request};
use serde::Serialize;
use serde_json::Value;

use crate::arguments::{DescribeEnclaves, Form};
use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::image_metadata::{self, FlatMetadata, flatten};
use crate::{output, table};

pub(super) fn execute(options: &DescribeEnclaves, environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    if options.ended {
        print_ended(&mut daemon, options.output)
    } else if options.metadata {
        print_with_metadata(&mut daemon, options.output)
    } else {
        print_running(&mut daemon, options.output)
    }
}

fn print_running(daemon: &mut Daemon, form: Form) -> Result<(), CommandError> {
    let Reply::Enclaves(mut enclaves) = daemon.ask(&Request::DescribeEnclaves, None)? else {
        return Err(unexpected_answer().into());
    };
    match form {
        Form::Json => {
            enclaves.iter_mut().for_each(leave_out_what_aws_does_not_print);
            output::print_json(&enclaves)
        }
        Form::Table => table::print(RUNNING, enclaves.iter().map(row)),
    }
}

/// Programs may read the JSON with a parser that knows AWS's keys alone.
fn leave_out_what_aws_does_not_print(enclave: &mut EnclaveDescription) {
    enclave.vsock = None;
}

/// The columns of a running enclave.
const RUNNING: [&str; 8] = ["NAME", "ID", "CID", "CPUS", "MEMORY", "STATE", "FLAGS", "VSOCK"];

fn row(enclave: &EnclaveDescription) -> [String; 8] {
    let EnclaveDescription {
        run,
        state,
        flags,
        vsock,
        ..
    } = enclave;
    let cpus: Vec<String> = run.cpu_ids.iter().map(u32::to_string).collect();
    [
        run.enclave_name.clone(),
        run.enclave_id.clone(),
        run.enclave_cid.to_string(),
        cpus.join(","),
        format!("{} MiB", run.memory_mib),
        word(state),
        word(flags),
        vsock.as_ref().map(word).unwrap_or_default(),
    ]
}

/// A state or a flag as JSON has it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

fn print_with_metadata(daemon: &mut Daemon, form: Form) -> Result<(), CommandError> {
    let Reply::RunningImages(mut images) = daemon.ask(&Request::DescribeImages, None)? else {
        return Err(unexpected_answer().into());
    };
    if form == Form::Json {
        let enclaves = images.iter_mut().map(|image| &mut image.enclave);
        enclaves.for_each(leave_out_what_aws_does_not_print);
    }
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
    match form {
        Form::Json => output::print_json(&described.collect::<Vec<_>>()),
        Form::Table => {
            let [name, id, cid, cpus, memory, state, flags, vsock] = RUNNING;
            let head = [
                name, id, cid, cpus, memory, state, flags, vsock, "IMAGE", "VERSION",
            ];
            let rows = described.map(|described| {
                let [name, id, cid, cpus, memory, state, flags, vsock] = row(described.enclave);
                let said = |text: Option<&str>| text.unwrap_or_default().to_owned();
                let (image, version) = (said(described.image_name), said(described.image_version));
                [name, id, cid, cpus, memory, state, flags, vsock, image, version]
            });
            table::print(head, rows)
        }
    }
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

fn print_ended(daemon: &mut Daemon, form: Form) -> Result<(), CommandError> {
    let Reply::Ended(enclaves) = daemon.ask(&Request::EndedEnclaves, None)? else {
        return Err(unexpected_answer().into());
    };
    let shown = enclaves.into_iter().map(Shown::from);
    match form {
        Form::Json => output::print_json(&shown.collect::<Vec<_>>()),
        Form::Table => {
            let rows = shown.map(|enclave| {
                let code = enclave.exit_code.map(|code| code.to_string());
                [
                    enclave.run.enclave_name,
                    enclave.run.enclave_id,
                    enclave.ended_at,
                    code.unwrap_or_else(|| "-".into()),
                    enclave.reason,
                ]
            });
            table::print(["NAME", "ID", "ENDED", "CODE", "REASON"], rows)
        }
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
