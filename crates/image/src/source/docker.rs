//! Archives of `docker save` in their original form: `manifest.json` names a configuration and layers by path.
//!
//! Paths carry no digest that can be relied on, so layers are checked against the `diff_ids` of the configuration, and
//! the configuration against its own name when that is a digest, as Docker makes it.

use image_fetch::Digest;
use serde::Deserialize;

use super::container::{Container, parse};
use super::platform::Platform;
use super::{ContainerImage, Names, is_named};
use crate::ImageError;
use crate::config::ImageFile;
use crate::layer::{Check, Layer};
use crate::tree::TreePath;

const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Item {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.repo_tags.iter().flatten()
    }
}

/// Reads the description of one image of the archive.
pub(super) fn load(container: &Container, reference: Option<&str>) -> Result<ContainerImage, ImageError> {
    let items: Vec<Item> = parse(MANIFEST, &container.document(MANIFEST)?)?;
    let item = choose(container, items, reference)?;
    let config_name = clean(&item.config)?;
    let bytes = container.document(&config_name)?;
    if let Some(digest) = digest_in_name(&config_name) {
        digest
            .check(&bytes)
            .map_err(|mismatch| ImageError::digest(&config_name, &mismatch))?;
    }
    let config = ImageFile::parse(&config_name, &bytes)?;
    let platform = Platform::new(&config.os, &config.architecture);
    if !platform.is_ours() {
        return Err(ImageError::Platform(platform.to_string()));
    }
    let mut image = ContainerImage {
        config,
        layers: Vec::new(),
    };
    image.check_count(item.layers.len())?;
    for (name, diff_id) in item.layers.iter().zip(&image.config.rootfs.diff_ids) {
        let digest = Digest::parse(diff_id).ok_or_else(|| ImageError::UnknownDigest(diff_id.clone()))?;
        image.layers.push(Layer {
            blob: container.open(&clean(name)?)?,
            check: Check::Archive(digest),
        });
    }
    Ok(image)
}

fn choose(container: &Container, mut items: Vec<Item>, reference: Option<&str>) -> Result<Item, ImageError> {
    let names: Vec<String> = items.iter().flat_map(Item::names).cloned().collect();
    let path = || container.path().to_owned();
    let available = || Names(&names).to_string();
    if let Some(reference) = reference {
        items.retain(|item| item.names().any(|name| is_named(name, reference)));
        if items.is_empty() {
            let reference = reference.to_owned();
            return Err(ImageError::NoSuchReference {
                path: path(),
                reference,
                available: available(),
            });
        }
    }
    items.dedup_by(|one, other| one.config == other.config);
    let item = items.pop().ok_or_else(|| ImageError::NotAnImage(path()))?;
    if items.is_empty() {
        Ok(item)
    } else {
        Err(ImageError::Ambiguous {
            path: path(),
            available: available(),
        })
    }
}

/// `<hex>.json` or `blobs/sha256/<hex>`.
fn digest_in_name(name: &str) -> Option<Digest> {
    let file = name.rsplit('/').next()?;
    Digest::parse(&format!("sha256:{}", file.strip_suffix(".json").unwrap_or(file)))
}

/// A path as the archive's index has it; one that leads out of the archive names nothing in it.
fn clean(name: &str) -> Result<String, ImageError> {
    let missing = || ImageError::Missing(name.to_owned());
    let path = TreePath::parse(name.as_bytes()).map_err(|_| missing())?;
    String::from_utf8(path.as_bytes().to_vec()).map_err(|_| missing())
}
