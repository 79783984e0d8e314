//! `describe-eif`: what an image file holds, as JSON. Reads the file once and asks nobody.
//!
//! An image with a wrong CRC is described all the same, with `CheckCRC` false. So is one whose signature is not the
//! certificate's, or over another PCR0 than the image has: `SignatureCheck` is false. Whether the certificate is valid now is
//! not part of that, as on AWS; its dates are shown.

use std::collections::BTreeMap;
use std::path::Path;

use api::{ErrorCode, Failure};
use eif::Inspection;
use eif_signature::Certificate;
use serde::Serialize;

use crate::arguments::DescribeEif;
use crate::error::CommandError;
use crate::files::open_regular;
use crate::image_metadata::{FlatMetadata, flatten};
use crate::{measurements, output};

pub(super) fn execute(options: &DescribeEif) -> Result<(), CommandError> {
    let inspection = inspect(&options.eif_path)?;
    let metadata = inspection.metadata.as_ref();
    let certificate = inspection
        .signature
        .as_ref()
        .and_then(|signature| Certificate::from_pem(&signature.certificate_pem).ok());
    output::print_json(&Description {
        eif_version: inspection.layout.header.version,
        measurements: measurements::of_image(&inspection.measurements, inspection.pcr8.as_ref()),
        is_signed: inspection.signature.is_some(),
        signing_certificate: certificate.as_ref().map(describe_certificate),
        check_crc: inspection.crc_ok,
        signature_check: inspection.signature.as_ref().map(|signature| {
            let pcr0 = &inspection.measurements.pcr0;
            certificate
                .as_ref()
                .is_some_and(|certificate| certificate.check_signature(&signature.cose_sign1, pcr0).is_ok())
        }),
        image_name: metadata.map(|metadata| metadata.image_name.as_str()),
        image_version: metadata.map(|metadata| metadata.image_version.as_str()),
        metadata: metadata.map(flatten).transpose()?,
    })
}

/// # Errors
/// E35 for whatever is wrong with the file, also if it is not there: AWS has one number for both.
fn inspect(path: &Path) -> Result<Inspection, Failure> {
    let context = |doing| format!("Cannot {doing} the EIF `{}`", path.display());
    let (file, size) = open_regular(path)
        .map_err(|error| Failure::caused_by(ErrorCode::EifParsing, &context("open"), &error))?;
    eif::inspect(&file, size)
        .map_err(|error| Failure::caused_by(ErrorCode::EifParsing, &context("read"), &error))
}

/// What is printed, in AWS's order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description<'a> {
    eif_version: u16,
    measurements: api::Measurements,
    is_signed: bool,
    /// None also if there is one but it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_certificate: Option<CertificateDescription>,
    #[serde(rename = "CheckCRC")]
    check_crc: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signature_check: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<FlatMetadata<'a>>,
}

/// The signer's certificate, in OpenSSL's words.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CertificateDescription {
    issuer_name: BTreeMap<String, String>,
    algorithm: String,
    not_before: String,
    not_after: String,
    /// The issuer's, such as `30:65:02`.
    signature: String,
}

fn describe_certificate(certificate: &Certificate) -> CertificateDescription {
    let signature: Vec<String> = certificate
        .signature()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    CertificateDescription {
        issuer_name: certificate.issuer(),
        algorithm: certificate.algorithm(),
        not_before: certificate.not_before().to_string(),
        not_after: certificate.not_after().to_string(),
        signature: signature.join(":"),
    }
}
