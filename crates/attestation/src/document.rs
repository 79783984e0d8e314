//! Writing a document.

use crate::cbor::Writer;
use crate::chain::CaBundle;
use crate::content::{ContentFault, DIGEST};
use crate::{AttestationContent, Certificate, MAX_DOCUMENT, SignError, Signer, cose};

/// Entries of a document's map.
pub(crate) const KEYS: usize = 9;

/// What the security module's response adds to a document: `{"Attestation": {"document": bytes}}`.
const RESPONSE_OVERHEAD: usize = 26;

/// How the map of a document begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MapForm {
    /// `a9`: nine entries. Every genuine document until 2025, and what each verifier takes.
    #[default]
    Definite,
    /// `bf` … `ff`: genuine documents since the middle of 2025. To test verifiers with.
    Indefinite,
}

/// A signed document that says `content`.
///
/// `leaf` is the enclave's certificate, issued by the last certificate of `bundle`; its key is `signer`'s.
pub fn write(
    content: &AttestationContent,
    leaf: &Certificate,
    bundle: &CaBundle,
    signer: &dyn Signer,
    form: MapForm,
) -> Result<Vec<u8>, WriteError> {
    if let Some(fault) = content.fault() {
        return Err(WriteError::Content(fault));
    }
    if leaf.public_key() != &signer.public_key() {
        return Err(WriteError::Key);
    }
    if !leaf.names_issuer(bundle.host()) {
        return Err(WriteError::Issuer);
    }
    let payload = payload(content, leaf, bundle, form);
    let signature = signer.sign(&cose::signed_bytes(&payload))?;
    let document = cose::frame(&payload, &signature);
    if document.len() > MAX_DOCUMENT - RESPONSE_OVERHEAD {
        return Err(WriteError::Size(document.len()));
    }
    Ok(document)
}

fn payload(content: &AttestationContent, leaf: &Certificate, bundle: &CaBundle, form: MapForm) -> Vec<u8> {
    let mut writer = Writer::default();
    match form {
        MapForm::Definite => writer.map(KEYS),
        MapForm::Indefinite => writer.begin_map(),
    }
    writer.text("module_id");
    writer.text(&content.module_id);
    writer.text("digest");
    writer.text(DIGEST);
    writer.text("timestamp");
    writer.uint64(content.timestamp.as_millis());
    writer.text("pcrs");
    writer.map(content.pcrs.len());
    for (index, value) in &content.pcrs {
        writer.uint((*index).into());
        writer.bytes(value);
    }
    writer.text("certificate");
    writer.bytes(leaf.as_der());
    writer.text("cabundle");
    writer.array(bundle.certificates().len());
    for certificate in bundle.certificates() {
        writer.bytes(certificate.as_der());
    }
    writer.text("public_key");
    writer.bytes_or_null(content.public_key.as_deref());
    writer.text("user_data");
    writer.bytes_or_null(content.user_data.as_deref());
    writer.text("nonce");
    writer.bytes_or_null(content.nonce.as_deref());
    if form == MapForm::Indefinite {
        writer.end();
    }
    writer.into_bytes()
}

/// Why a document was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It would say what no document may.
    #[error(transparent)]
    Content(ContentFault),
    /// The signer's key is not the certificate's.
    #[error("the signing key is not the one that the enclave's certificate vouches for")]
    Key,
    /// The certificate is not from the bundle's last authority.
    #[error("the enclave's certificate was not issued by the last certificate of the bundle")]
    Issuer,
    /// The response of the security module would be too long.
    #[error("the document has {0} bytes, too many for a response of {MAX_DOCUMENT}")]
    Size(usize),
    /// The key's device failed.
    #[error(transparent)]
    Sign(#[from] SignError),
}
