//! Who signs: the files of `--signing-certificate` and `--private-key`.

use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use api::{ErrorCode, Failure};
use eif_signature::{OfflineSigner, Signer, SignerError};
use zeroize::Zeroizing;

use crate::arguments::Signing;
use crate::files::open_readable;

/// The most bytes of a certificate or key. An EIF has room for a certificate of about half of this.
const LIMIT: u64 = 32 * 1024;

/// The signer that the options name; `None` if they name none. clap has seen to it that there are both or none.
///
/// # Errors
/// `code` if they cannot sign: AWS's number depends on the command.
pub(crate) fn signer(options: &Signing, code: ErrorCode) -> Result<Option<Signer>, Failure> {
    let (Some(certificate), Some(key)) = (&options.signing_certificate, &options.private_key) else {
        return Ok(None);
    };
    if is_kms_arn(key) {
        return Err(Failure::new(
            code,
            format!(
                "The private key `{}` is in AWS's Key Management Service, which is not available here. \
                 Give a file with the key in PEM",
                key.display()
            ),
        ));
    }
    let certificate_pem = read(certificate, "signing certificate", code)?.to_vec();
    let key_pem = read(key, "private key", code)?;
    Signer::new(certificate_pem, &key_pem, SystemTime::now())
        .map(Some)
        .map_err(|error| {
            let (what, path) = match &error {
                SignerError::Certificate(_) => ("signing certificate", certificate),
                SignerError::Key(_) | SignerError::Unsignable | SignerError::OtherSignature => {
                    ("private key", key)
                }
            };
            Failure::caused_by(
                code,
                &format!("Cannot sign with the {what} `{}`", path.display()),
                &error,
            )
        })
}

/// The signer whose certificate is in a file, and whose key is elsewhere.
///
/// # Errors
/// `code` if the certificate cannot be one of a signer.
pub(crate) fn offline_signer(certificate: &Path, code: ErrorCode) -> Result<OfflineSigner, Failure> {
    let pem = read(certificate, "signing certificate", code)?.to_vec();
    OfflineSigner::new(pem, SystemTime::now()).map_err(|error| {
        let context = format!(
            "Cannot sign with the signing certificate `{}`",
            certificate.display()
        );
        Failure::caused_by(code, &context, &error)
    })
}

/// Such as `arn:aws:kms:us-east-1:123456789012:key/…`, in any of AWS's partitions.
fn is_kms_arn(key: &Path) -> bool {
    let key = key.to_string_lossy();
    let mut parts = key.split(':');
    parts.next() == Some("arn") && parts.next().is_some() && parts.next() == Some("kms")
}

/// What is in a small file. It is overwritten in memory when it is dropped: it may be a key.
pub(crate) fn read(path: &Path, what: &str, code: ErrorCode) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let context = format!("Cannot read the {what} `{}`", path.display());
    let unreadable = |error| Failure::caused_by(code, &context, &error);
    let file = open_readable(path).map_err(unreadable)?;
    // With room for all of it from the start, so that no part of it is left behind where the vector was before.
    let mut contents = Zeroizing::new(Vec::with_capacity(usize::try_from(LIMIT + 1).unwrap_or_default()));
    file.take(LIMIT + 1)
        .read_to_end(&mut contents)
        .map_err(unreadable)?;
    if contents.len() as u64 > LIMIT {
        return Err(Failure::new(
            code,
            format!("{context}: it has more than {LIMIT} bytes"),
        ));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_kms_are_told_from_files() {
        for arn in [
            "arn:aws:kms:us-east-1:123456789012:key/1234abcd",
            "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key:1234abcd",
        ] {
            assert!(is_kms_arn(Path::new(arn)), "{arn}");
        }
        for file in ["key.pem", "arn", "arn:aws:iam::1:role/x", "./arn:aws:kms:x"] {
            assert!(!is_kms_arn(Path::new(file)), "{file}");
        }
    }
}
