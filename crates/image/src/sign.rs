//! Signing an EIF that has been built.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use atomic_file::AtomicFile;
use eif::{Builder, Measurements, Pcr, SignatureSection};
use eif_signature::{Signer, SignerError};

use crate::ImageError;

/// Signs the EIF at `path`, in place of the signature that it may have. The file is replaced when the signed one is complete
/// or not at all, and keeps its permissions; equal images and signers give equal bytes.
///
/// # Errors
/// [`ImageError::Read`], [`ImageError::Eif`], [`ImageError::Sign`], [`ImageError::Output`], [`ImageError::Write`].
pub fn sign(path: &Path, signer: &Signer) -> Result<Measurements, ImageError> {
    sign_with(path, |pcr0| signer.sign(pcr0))
}

/// [`sign`], with the signature that `signature` makes or has for the image's PCR0.
///
/// # Errors
/// Those of [`sign`].
pub fn sign_with(
    path: &Path,
    signature: impl FnOnce(&Pcr) -> Result<SignatureSection, SignerError>,
) -> Result<Measurements, ImageError> {
    let unreadable = |source| ImageError::Read {
        path: path.to_owned(),
        source,
    };
    let output = AtomicFile::create(path)?;
    let image = File::open(path).map_err(unreadable)?;
    let metadata = image.metadata().map_err(unreadable)?;
    let mut builder =
        Builder::unsigned_copy(&image, metadata.len(), output.file()).map_err(ImageError::Eif)?;
    let section = signature(&builder.measurements().pcr0).map_err(ImageError::Sign)?;
    builder.add_signature(&section).map_err(ImageError::Eif)?;
    let measurements = builder.finish().map_err(ImageError::Eif)?;
    output
        .file()
        .set_permissions(metadata.permissions())
        .map_err(|source| ImageError::Write {
            path: path.to_owned(),
            source,
        })?;
    output.commit()?;
    Ok(measurements)
}

/// Signs what has been written.
pub(crate) fn add_signature<W: Write + Seek>(
    builder: &mut Builder<W>,
    signer: &Signer,
) -> Result<(), ImageError> {
    let signature = signer
        .sign(&builder.measurements().pcr0)
        .map_err(ImageError::Sign)?;
    builder.add_signature(&signature).map_err(ImageError::Eif)
}
