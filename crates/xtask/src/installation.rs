//! Everything that a parent, be it this host or a parent instance, needs to run enclaves.

use std::path::Path;
use std::time::Duration;

use parent_instance::{Config, GuestFile};

use crate::error::Error;
use crate::examples::{self, BUSYBOX, Examples};
use crate::kernels::{self, Kernel, Kind};
use crate::parent::{MachineOptions, file};
use crate::programs::{self, Programs};
use crate::steps::Steps;
use crate::workspace::Workspace;

/// Steps of [`Installation::prepare`].
pub(crate) const STEPS: usize = 3;

/// Where nitro-cli looks for what `build-enclave` adds to an image.
pub(crate) const BLOBS: &str = "/usr/share/nitro_enclaves/blobs";

/// Our programs, what they build enclaves from, and the example enclaves.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) programs: Programs,
    /// The enclave kernel; nitro-cli's blobs have one form of it.
    pub(crate) kernel: Kernel,
    pub(crate) examples: Examples,
}

impl Installation {
    /// Builds what is not built yet, in [`STEPS`] steps. The Debian packages of [`apt`](crate::apt) must be there.
    pub(crate) fn prepare(workspace: &Workspace, steps: &mut Steps) -> Result<Self, Error> {
        let programs = steps.quiet("programs", || programs::built(workspace))?;
        let kernel = steps.quiet(Kind::Enclave.label(), || kernels::built(workspace, Kind::Enclave))?;
        let examples = steps.quiet("example enclaves", || {
            examples::built(workspace, &programs, &kernel)
        })?;
        Ok(Self {
            programs,
            kernel,
            examples,
        })
    }

    /// A parent instance with all of it: programs in `/usr/bin`, blobs where nitro-cli looks for them, `hello.eif` and
    /// `attest.eif` in the directory where commands start. With systemd there are only the examples: the rest is what a
    /// package installs.
    pub(crate) fn parent(&self, workspace: &Workspace, kernel: &Kernel, options: &MachineOptions) -> Config {
        let client = &self.programs.attest_client;
        let mut files = vec![
            file(&self.examples.hello(), "/root/hello.eif"),
            file(&self.examples.attest(), "/root/attest.eif"),
            file(client, &below("/usr/bin", client)),
        ];
        if !options.systemd {
            self.place(&mut files);
        }
        Config {
            cpus: options.cpus,
            threads: options.threads,
            nodes: options.nodes,
            memory: options.memory,
            hugepages_2m: options.hugepages_2m,
            hugepages_1g: options.hugepages_1g,
            share: options.share.clone(),
            packages: options.packages.clone(),
            files,
            daemon: !options.no_daemon && !options.systemd,
            systemd: options.systemd,
            icount: options.icount,
            time_limit: Duration::from_mins(options.time_limit),
            ..Config::new(kernel.bzimage(), BUSYBOX.into(), workspace.cache().join("debian"))
        }
    }

    fn place(&self, files: &mut Vec<GuestFile>) {
        for program in self.programs.of_the_parent() {
            files.push(file(program, &below("/usr/bin", program)));
        }
        for blob in examples::BLOBS {
            files.push(file(
                &self.examples.blobs().join(blob),
                &format!("{BLOBS}/{blob}"),
            ));
        }
    }
}

/// The path in `directory` of a file with the name of `host`.
pub(crate) fn below(directory: &str, host: &Path) -> String {
    format!(
        "{directory}/{}",
        host.file_name().unwrap_or_default().to_string_lossy()
    )
}
