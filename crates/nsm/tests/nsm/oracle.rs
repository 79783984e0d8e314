//! Against AWS's own types under serde_cbor: the library that enclave applications link.

use std::collections::BTreeSet;

use aws_nitro_enclaves_nsm_api::api::{
    Digest, ErrorCode as ApiErrorCode, Request as ApiRequest, Response as ApiResponse,
};
use nsm::{ErrorCode, ModuleId, Pcr, RANDOM_LEN, Request, Response};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::client::{attestation, decoded, encoded, ours, understood};
use crate::unusual::unusual_request;

fn bytes(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..limit)
}

fn any_request() -> impl Strategy<Value = ApiRequest> {
    let field = || prop::option::of(bytes(1100));
    prop_oneof![
        any::<u16>().prop_map(|index| ApiRequest::DescribePCR { index }),
        (any::<u16>(), bytes(4000)).prop_map(|(index, data)| ApiRequest::ExtendPCR { index, data }),
        any::<u16>().prop_map(|index| ApiRequest::LockPCR { index }),
        any::<u16>().prop_map(|range| ApiRequest::LockPCRs { range }),
        Just(()).prop_map(|()| ApiRequest::DescribeNSM),
        Just(()).prop_map(|()| ApiRequest::GetRandom),
        (field(), field(), field()).prop_map(|(user, nonce, key)| attestation(
            user.as_deref(),
            nonce.as_deref(),
            key.as_deref()
        )),
    ]
}

fn api_error(code: ErrorCode) -> ApiErrorCode {
    match code {
        ErrorCode::Success => ApiErrorCode::Success,
        ErrorCode::InvalidArgument => ApiErrorCode::InvalidArgument,
        ErrorCode::InvalidIndex => ApiErrorCode::InvalidIndex,
        ErrorCode::InvalidResponse => ApiErrorCode::InvalidResponse,
        ErrorCode::ReadOnlyIndex => ApiErrorCode::ReadOnlyIndex,
        ErrorCode::InvalidOperation => ApiErrorCode::InvalidOperation,
        ErrorCode::BufferTooSmall => ApiErrorCode::BufferTooSmall,
        ErrorCode::InputTooLarge => ApiErrorCode::InputTooLarge,
        ErrorCode::InternalError => ApiErrorCode::InternalError,
    }
}

#[test]
fn errors_are_the_oracles_byte_for_byte() {
    for code in ErrorCode::ALL {
        let theirs = ApiResponse::Error(api_error(code));
        assert_eq!(
            Response::Error(code).encode(),
            serde_cbor::to_vec(&theirs).unwrap()
        );
    }
}

/// Both have the same bytes, and the oracle reads ours as what they are.
fn same(ours: &Response<'_>, theirs: &ApiResponse) {
    let bytes = ours.encode();
    assert_eq!(bytes, serde_cbor::to_vec(theirs).unwrap(), "{ours:?}");
    assert_eq!(format!("{:?}", decoded(&bytes)), format!("{theirs:?}"));
}

proptest! {
    #[test]
    fn every_request_that_it_encodes_is_decoded(request in any_request()) {
        let bytes = encoded(&request);
        prop_assert_eq!(Request::decode(&bytes), Ok(ours(&request)));
    }

    #[test]
    fn every_response_is_its_byte_for_byte(
        locked in any::<bool>(),
        value in any::<[u8; 48]>().prop_map(Pcr),
        random in vec(any::<u8>(), RANDOM_LEN),
        document in bytes(12263),
        module_id in "[!-~]{1,100}",
        locked_pcrs in prop::collection::btree_set(0_u16..32, 0..32),
    ) {
        let data = value.0.to_vec();
        same(&Response::DescribePcr { locked, value }, &ApiResponse::DescribePCR { lock: locked, data: data.clone() });
        same(&Response::ExtendPcr { value }, &ApiResponse::ExtendPCR { data });
        same(&Response::LockPcr, &ApiResponse::LockPCR);
        same(&Response::LockPcrs, &ApiResponse::LockPCRs);
        let array: [u8; RANDOM_LEN] = random.clone().try_into().unwrap();
        same(&Response::GetRandom { random: &array }, &ApiResponse::GetRandom { random });
        same(&Response::Attestation { document: &document }, &ApiResponse::Attestation { document: document.clone() });
        describe_nsm(&module_id, &locked_pcrs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    /// Requests that are put together from everything that a client may vary, and from much that it may not, are accepted
    /// by both or by neither.
    #[test]
    fn both_accept_the_same_requests(request in unusual_request()) {
        let theirs = understood(&request);
        let decoded = Request::decode(&request);
        prop_assert_eq!(decoded.clone().ok(), theirs.as_ref().map(ours), "{:?}", decoded);
    }
}

fn describe_nsm(module_id: &str, locked_pcrs: &BTreeSet<u16>) {
    let theirs = ApiResponse::DescribeNSM {
        version_major: 1,
        version_minor: 0,
        version_patch: 0,
        module_id: module_id.into(),
        max_pcrs: 32,
        locked_pcrs: locked_pcrs.clone(),
        digest: Digest::SHA384,
    };
    let ours = Response::DescribeNsm {
        module_id: &ModuleId::new(module_id).unwrap(),
        locked_pcrs: &locked_pcrs.iter().copied().collect::<Vec<_>>(),
    };
    same(&ours, &theirs);
}

/// Otherwise `both_accept_the_same_requests` would show little.
#[test]
fn unusual_requests_are_often_accepted_and_often_not() {
    let mut runner = TestRunner::deterministic();
    let requests = unusual_request();
    let requests = (0..1000).map(|_| requests.new_tree(&mut runner).unwrap().current());
    let accepted = requests.filter(|request| understood(request).is_some()).count();
    assert!((200..800).contains(&accepted), "{accepted} of 1000");
}
