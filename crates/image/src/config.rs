//! The configuration of an image, and what an enclave takes from it.

use image_fetch::Digest;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ImageError;
use crate::time;

/// The configuration file (OCI image specification, `config.md`; Docker's is the same).
#[derive(Debug)]
pub(crate) struct ImageFile {
    pub(crate) os: String,
    pub(crate) architecture: String,
    /// When the image was made, in RFC 3339; none if it says so in another form.
    pub(crate) created: Option<String>,
    pub(crate) rootfs: RootFs,
    /// Digest of the file: what Docker calls the image's id.
    pub(crate) id: Digest,
    pub(crate) execution: Execution,
    /// The file, for the metadata of the EIF.
    whole: Value,
}

#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    created: Option<String>,
    #[serde(default)]
    rootfs: RootFs,
    config: Option<RawExecution>,
}

/// The layers, by the digests of their uncompressed archives.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawExecution {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
}

/// How the application of an enclave is started. Empty values mean that nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Execution {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `NAME=value` each.
    pub environment: Vec<String>,
    /// Where the program starts; `/` if empty.
    pub working_directory: String,
    /// `user[:group]`, names or numbers; root if empty.
    pub user: String,
}

impl Execution {
    /// Puts what `changes` says in the place of what the image says. Of the environment, variables are replaced by name
    /// and others appended.
    pub(crate) fn override_with(&mut self, changes: &Self) {
        if !changes.command.is_empty() {
            self.command.clone_from(&changes.command);
        }
        for variable in &changes.environment {
            let name = |text: &str| text.split('=').next().map(str::to_owned);
            match self
                .environment
                .iter_mut()
                .find(|existing| name(existing) == name(variable))
            {
                Some(existing) => existing.clone_from(variable),
                None => self.environment.push(variable.clone()),
            }
        }
        if !changes.working_directory.is_empty() {
            self.working_directory.clone_from(&changes.working_directory);
        }
        if !changes.user.is_empty() {
            self.user.clone_from(&changes.user);
        }
    }
}

impl From<RawExecution> for Execution {
    fn from(raw: RawExecution) -> Self {
        let mut command = raw.entrypoint.unwrap_or_default();
        command.extend(raw.cmd.unwrap_or_default());
        Self {
            command,
            environment: raw.env.unwrap_or_default(),
            working_directory: raw.working_dir.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
        }
    }
}

impl ImageFile {
    /// Parses the file of the given name in the image.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self, ImageError> {
        let error = |source| ImageError::Json {
            name: name.to_owned(),
            source,
        };
        let whole: Value = serde_json::from_slice(bytes).map_err(error)?;
        let fields: Fields = serde_json::from_slice(bytes).map_err(error)?;
        Ok(Self {
            os: fields.os,
            architecture: fields.architecture,
            created: fields.created.filter(|created| time::is_rfc3339(created)),
            rootfs: fields.rootfs,
            id: Digest::sha256(bytes),
            execution: fields.config.unwrap_or_default().into(),
            whole,
        })
    }

    /// What `docker image inspect` says of the image, as far as it depends on the image alone and not on the machine it is
    /// stored on: one image gives one description.
    pub(crate) fn docker_info(&self, reference: Option<&str>) -> Value {
        json!({
            "Id": self.id.to_string(),
            "RepoTags": reference.into_iter().collect::<Vec<_>>(),
            "RepoDigests": [],
            "Created": self.created,
            "Author": self.whole.get("author"),
            "Config": self.whole.get("config"),
            "Architecture": self.architecture,
            "Variant": self.whole.get("variant"),
            "Os": self.os,
            "RootFS": { "Type": "layers", "Layers": self.rootfs.diff_ids },
        })
    }
}
