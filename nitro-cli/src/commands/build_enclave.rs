//! `build-enclave`: a container image or a root file system becomes an EIF. The work is the [`image`] crate's.
//!
//! The output appears when it is complete or not at all. The same input gives the same bytes; `SOURCE_DATE_EPOCH` is
//! honoured.

use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};

use api::{ErrorCode, Failure, Measurements};
use eif::Pcr;
use image::{BlobChoice, Blobs, BuildOptions, BuildReport};
use serde::Serialize;
use serde_json::Value;

use crate::arguments::BuildEnclave;
use crate::environment::Environment;
use crate::error::CommandError;
use crate::files::{open_readable, open_regular};
use crate::progress::{ProgressReport, Step};
use crate::{image_source, interruption, measurements, output, signing};

/// The most bytes that the file of `--metadata` may have; AWS's limit.
const METADATA_LIMIT: u64 = 4096;

pub(super) fn execute(options: &BuildEnclave, environment: &Environment) -> Result<(), CommandError> {
    interruption::clean_up_at_the_end()?;
    let mut progress = ProgressReport::on_stderr(options.quiet);
    progress.notice("Start building the Enclave Image...");
    let built = build(options, environment, &mut progress);
    progress.clear();
    let (report, pcr8) = built?;
    for warning in &report.warnings {
        output::notice(format_args!("Warning: {warning}"));
    }
    if !options.measure_only {
        progress.notice("Enclave Image successfully created.");
    }
    output::print_json(&Built {
        measurements: measurements::of_image(&report.measurements, pcr8.as_ref()),
    })
}

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Built {
    measurements: Measurements,
}

/// Builds, and signs if that is wanted; then there is a PCR8.
fn build(
    options: &BuildEnclave,
    environment: &Environment,
    progress: &mut ProgressReport,
) -> Result<(BuildReport, Option<Pcr>), Failure> {
    let blobs = find_blobs(&environment.blobs, options)?;
    let signer = signing::signer(&options.signing, ErrorCode::EifBuilding)?;
    let pcr8 = signer.as_ref().map(|signer| signer.certificate().pcr8());
    let build_options = BuildOptions {
        signer,
        name: options.name.clone(),
        version: options.version.clone(),
        custom_metadata: options.metadata.as_deref().map(read_metadata).transpose()?,
        source_date_epoch: environment.epoch()?,
        ..BuildOptions::default()
    };
    // clap has seen to it that it is there unless it is not needed.
    let output = options.output_file.as_deref().filter(|_| !options.measure_only);
    let temporary = output.map_or_else(env::temp_dir, directory_of);
    let source = image_source::find(options, environment, &temporary, progress)?;
    let show = &mut |step| progress.show(Step::Image(step));
    let report = match output {
        Some(output) => image::build(&source, &blobs, &build_options, output, show),
        None => image::measure(&source, &blobs, &build_options, show),
    };
    report
        .map(|report| (report, pcr8))
        .map_err(|error| image_source::build_failure(&options.docker_uri.to_string_lossy(), &error))
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// # Errors
/// E19 if the directory's first file, by AWS's order, cannot be read; E48 if another one is missing.
fn find_blobs(directory: &Path, options: &BuildEnclave) -> Result<Blobs, Failure> {
    let remedy = "NITRO_CLI_BLOBS names the directory with bzImage, bzImage.config, cmdline and init";
    if options.cmdline.is_none() {
        open_regular(&directory.join("cmdline")).map_err(|error| {
            Failure::new(
                ErrorCode::FileOperation,
                format!(
                    "Cannot open `cmdline` of the enclave's kernel in `{}`: {error}. {remedy}",
                    directory.display()
                ),
            )
        })?;
    }
    let choice = BlobChoice {
        kernel: options.kernel.clone(),
        cmdline: options.cmdline.clone(),
        init: options.init.clone(),
    };
    Blobs::find(directory, &choice)
        .map_err(|error| Failure::new(ErrorCode::EifBuilding, format!("The blob {error}. {remedy}")))
}

/// The user's metadata.
///
/// # Errors
/// E48 for anything but a small file with a JSON object; describe-eif could not print another value.
fn read_metadata(path: &Path) -> Result<Value, Failure> {
    let failure = |reason: &str| {
        Failure::new(
            ErrorCode::EifBuilding,
            format!("Cannot use the metadata file `{}`: {reason}", path.display()),
        )
    };
    let file = open_readable(path).map_err(|error| failure(&error.to_string()))?;
    let mut bytes = Vec::new();
    // The size a file states is no limit: those of /proc state 0, and others grow.
    let read = file
        .take(METADATA_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failure(&error.to_string()))?;
    if read as u64 > METADATA_LIMIT {
        return Err(failure(&format!("it has more than {METADATA_LIMIT} bytes")));
    }
    match serde_json::from_slice(&bytes) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(_) => Err(failure(
            "it must hold a JSON object, such as `{\"Team\": \"payments\"}`",
        )),
        Err(error) => Err(failure(&format!("it is not JSON: {error}"))),
    }
}
