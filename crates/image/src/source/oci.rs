//! Images of OCI's form: `index.json` of a layout, or what a tag in a registry names → (index) → manifest → configuration and
//! layers, each named by digest.

use std::collections::BTreeMap;

use image_fetch::{Digest, Manifest as Fetched};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::container::{Container, parse};
use super::platform::Platform;
use super::{ContainerImage, Names, is_named};
use crate::config::ImageFile;
use crate::layer::Workspace;
use crate::layer::{Check, Layer};
use crate::{ImageError, Progress};

const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIG_TYPES: [&str; 2] = [
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
];
/// What the types of file system layers begin with; what follows says how they are compressed.
const LAYER_TYPES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.",
];
/// Annotations of a descriptor that name an image: OCI's, usually only a tag, and containerd's.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Annotation of what Docker's build tool puts beside an image (provenance, SBOM).
const ATTESTATION_ANNOTATION: &str = "vnd.docker.reference.type";
/// Indexes within indexes; tools make one.
const DEPTH_LIMIT: usize = 4;

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// What a document is, by its own words or by what it has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Nature {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

impl Nature {
    /// OCI does not demand that documents say what they are.
    fn into_media_type(self) -> Option<String> {
        self.media_type.or_else(|| match (self.manifests, self.layers) {
            (Some(_), None) => Some(INDEX_TYPES[0].to_owned()),
            (None, Some(_)) => Some(MANIFEST_TYPES[0].to_owned()),
            _ => None,
        })
    }
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    fn digest(&self) -> Result<Digest, ImageError> {
        Digest::parse(&self.digest).ok_or_else(|| ImageError::UnknownDigest(self.digest.clone()))
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        NAME_ANNOTATIONS
            .iter()
            .filter_map(|annotation| self.annotation(annotation))
    }

    /// An image or an index of images, not something stored beside them.
    fn is_image(&self) -> bool {
        let types = INDEX_TYPES.iter().chain(&MANIFEST_TYPES);
        self.annotation(ATTESTATION_ANNOTATION).is_none()
            && types.into_iter().any(|known| *known == self.media_type)
    }

    fn is_index(&self) -> bool {
        INDEX_TYPES.contains(&self.media_type.as_str())
    }

    /// Whether enclaves may be able to run it: descriptors of single-platform images often do not say.
    fn may_be_ours(&self) -> bool {
        self.platform.as_ref().is_none_or(Platform::is_ours)
    }
}

/// Reads the description of one image of the layout.
pub(super) fn load(
    container: &Container,
    reference: Option<&str>,
    workspace: &Workspace<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ContainerImage, ImageError> {
    let index: Index = parse("index.json", &container.document("index.json")?)?;
    let chosen = choose(container, index, reference)?;
    load_chosen(container, chosen, workspace, progress)
}

/// Reads the description of the image that a registry has under a name.
pub(super) fn load_fetched(
    container: &Container,
    fetched: &Fetched,
    workspace: &Workspace<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ContainerImage, ImageError> {
    let name = fetched.digest.blob_path();
    let nature: Nature = parse(&name, &fetched.bytes)?;
    // Not by what the server says: the document is the same wherever it comes from, and so is what is made of it.
    let chosen = Descriptor {
        media_type: nature.into_media_type().unwrap_or_default(),
        digest: fetched.digest.to_string(),
        size: fetched.bytes.len() as u64,
        platform: None,
        annotations: None,
    };
    if !chosen.is_image() {
        return Err(ImageError::MediaType(chosen.media_type));
    }
    load_chosen(container, chosen, workspace, progress)
}

/// Goes from an index to the image for enclaves, or takes the image.
fn load_chosen(
    container: &Container,
    mut chosen: Descriptor,
    workspace: &Workspace<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ContainerImage, ImageError> {
    for _ in 0..DEPTH_LIMIT {
        let digest = chosen.digest()?;
        let bytes = container.manifest(&digest)?;
        if !chosen.is_index() {
            let manifest = parse(&digest.blob_path(), &bytes)?;
            return load_manifest(container, &manifest, workspace, progress);
        }
        chosen = choose_platform(parse(&digest.blob_path(), &bytes)?)?;
    }
    Err(ImageError::MediaType(chosen.media_type))
}

/// The image of the given name; without one, the only image.
fn choose(container: &Container, index: Index, reference: Option<&str>) -> Result<Descriptor, ImageError> {
    let images: Vec<Descriptor> = index.manifests.into_iter().filter(Descriptor::is_image).collect();
    let mut names: Vec<String> = images
        .iter()
        .flat_map(Descriptor::names)
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    let path = || container.path().to_owned();
    let mut candidates = images;
    if let Some(reference) = reference {
        candidates
            .retain(|image| image.digest == reference || image.names().any(|name| is_named(name, reference)));
        if candidates.is_empty() {
            let available = Names(&names).to_string();
            return Err(ImageError::NoSuchReference {
                path: path(),
                reference: reference.to_owned(),
                available,
            });
        }
    }
    let chosen = choose_platform(Index {
        manifests: candidates.clone(),
    })?;
    let is_other = |image: &Descriptor| image.may_be_ours() && image.digest != chosen.digest;
    if candidates.iter().any(is_other) {
        return Err(ImageError::Ambiguous {
            path: path(),
            available: Names(&names).to_string(),
        });
    }
    Ok(chosen)
}

/// The first image for linux/amd64, or else the first that does not say what it is for.
fn choose_platform(index: Index) -> Result<Descriptor, ImageError> {
    let images = || index.manifests.iter().filter(|image| image.is_image());
    let ours = images().find(|image| image.platform.as_ref().is_some_and(Platform::is_ours));
    if let Some(image) = ours.or_else(|| images().find(|image| image.may_be_ours())) {
        return Ok(image.clone());
    }
    let platforms: Vec<String> = images()
        .filter_map(|image| image.platform.as_ref())
        .map(Platform::to_string)
        .collect();
    if platforms.is_empty() {
        let other = index.manifests.into_iter().next();
        return Err(other.map_or_else(
            || ImageError::Missing("manifest".to_owned()),
            |descriptor| ImageError::MediaType(descriptor.media_type),
        ));
    }
    Err(ImageError::Platform(platforms.join(", ")))
}

fn load_manifest(
    container: &Container,
    manifest: &Manifest,
    workspace: &Workspace<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ContainerImage, ImageError> {
    if !CONFIG_TYPES.contains(&manifest.config.media_type.as_str()) {
        return Err(ImageError::MediaType(manifest.config.media_type.clone()));
    }
    let digest = manifest.config.digest()?;
    let config = ImageFile::parse(&digest.blob_path(), &container.blob_document(&digest)?)?;
    let platform = Platform::new(&config.os, &config.architecture);
    if !platform.is_ours() {
        return Err(ImageError::Platform(platform.to_string()));
    }
    let mut image = ContainerImage {
        config,
        layers: Vec::new(),
    };
    image.check_count(manifest.layers.len())?;
    let sizes = manifest.layers.iter().map(|layer| layer.size);
    let total = sizes.fold(0_u64, u64::saturating_add);
    // Before anything is fetched.
    if container.is_remote() && total > workspace.limit {
        return Err(ImageError::TooLarge {
            size: total,
            limit: workspace.limit,
        });
    }
    let mut before = 0;
    for layer in &manifest.layers {
        let loaded = load_layer(container, layer, &mut |received| {
            progress(Progress::Pull {
                received: before + received,
                total,
            });
        })?;
        image.layers.push(loaded);
        before += layer.size;
    }
    Ok(image)
}

fn load_layer(
    container: &Container,
    layer: &Descriptor,
    progress: &mut dyn FnMut(u64),
) -> Result<Layer, ImageError> {
    let is_encrypted = layer.media_type.ends_with("+encrypted");
    if is_encrypted
        || !LAYER_TYPES
            .iter()
            .any(|known| layer.media_type.starts_with(known))
    {
        return Err(ImageError::MediaType(layer.media_type.clone()));
    }
    let digest = layer.digest()?;
    let blob = container.blob(&digest, layer.size, progress)?;
    Ok(Layer {
        blob,
        check: Check::Blob(digest),
    })
}
