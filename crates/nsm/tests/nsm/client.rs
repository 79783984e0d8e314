//! AWS's client library: its requests as bytes, its view of responses, and what it takes for a request.

use std::borrow::Cow;

use aws_nitro_enclaves_nsm_api::api::{Request as ApiRequest, Response as ApiResponse};
use nsm::Request;

/// The bytes that a client sends.
pub(crate) fn encoded(request: &ApiRequest) -> Vec<u8> {
    serde_cbor::to_vec(request).unwrap()
}

/// What a client takes a response for.
pub(crate) fn decoded(response: &[u8]) -> ApiResponse {
    serde_cbor::from_slice(response).unwrap()
}

/// What a module would take a request for that reads it with the client's own type; none if it would not take it.
pub(crate) fn understood(request: &[u8]) -> Option<ApiRequest> {
    serde_cbor::from_slice(request).ok()
}

pub(crate) fn attestation(
    user_data: Option<&[u8]>,
    nonce: Option<&[u8]>,
    public_key: Option<&[u8]>,
) -> ApiRequest {
    let owned = |bytes: Option<&[u8]>| bytes.map(|bytes| bytes.to_vec().into());
    ApiRequest::Attestation {
        user_data: owned(user_data),
        nonce: owned(nonce),
        public_key: owned(public_key),
    }
}

/// The request as this crate's type has it.
pub(crate) fn ours(request: &ApiRequest) -> Request<'_> {
    match request {
        ApiRequest::DescribePCR { index } => Request::DescribePcr { index: *index },
        ApiRequest::ExtendPCR { index, data } => Request::ExtendPcr {
            index: *index,
            data: Cow::Borrowed(data),
        },
        ApiRequest::LockPCR { index } => Request::LockPcr { index: *index },
        ApiRequest::LockPCRs { range } => Request::LockPcrs { range: *range },
        ApiRequest::DescribeNSM => Request::DescribeNsm,
        ApiRequest::GetRandom => Request::GetRandom,
        ApiRequest::Attestation {
            user_data,
            nonce,
            public_key,
        } => Request::Attestation {
            user_data: user_data.as_deref().map(|bytes| Cow::Borrowed(&bytes[..])),
            nonce: nonce.as_deref().map(|bytes| Cow::Borrowed(&bytes[..])),
            public_key: public_key.as_deref().map(|bytes| Cow::Borrowed(&bytes[..])),
        },
        other => panic!("a new kind of request: {other:?}"),
    }
}
