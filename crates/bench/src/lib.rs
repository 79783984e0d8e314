//! What `boot-bench` and `vsock-bench` share: [`Vmm`], an enclave without a daemon, [`Samples`] of a figure, and
//! how a benchmark names its images and ends.

#![forbid(unsafe_code)]

mod error;
mod samples;
mod vmm;

pub use error::{Error, at, system};
pub use samples::Samples;
pub use vmm::{Launch, Vmm};

use std::process::ExitCode;

use eif::{BuildMetadata, Metadata};

/// What the images of the benchmark `name`, whose version is `version`, say of themselves: always the same.
pub fn metadata(name: &str, version: &str) -> Metadata {
    Metadata {
        image_name: name.to_owned(),
        image_version: name.to_owned(),
        build_metadata: BuildMetadata {
            build_time: "1970-01-01T00:00:00Z".to_owned(),
            build_tool: name.to_owned(),
            build_tool_version: version.to_owned(),
            operating_system: name.to_owned(),
            kernel_version: name.to_owned(),
        },
        docker_info: None,
        custom_metadata: None,
    }
}

/// The exit code of the benchmark `name`. An error goes to standard error, with what caused it.
pub fn exit_code(name: &str, result: Result<(), impl std::error::Error>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    eprintln!("{name}: {text}");
    ExitCode::FAILURE
}
