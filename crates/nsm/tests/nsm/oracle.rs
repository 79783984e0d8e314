//! Against AWS's own types under serde_cbor: the library that enclave applications link.

use std::collections::BTreeSet;

use aws_nitro_enclaves_nsm_api::api::{
    Digest, ErrorCode as ApiErrorCode, Request as ApiRequest, Response as ApiResponse,
};
use nsm::{ErrorCode, ModuleId, Pcr, RANDOM_LEN, Request, Response};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::client::{attestation, decoded, encoded, ours, understood};

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

/// An item's first bytes: `major` type, `argument`, written at least `width` bytes wide.
fn head(major: u8, argument: u64, width: usize) -> Vec<u8> {
    let (first, length) = match (argument, width) {
        (0..=23, 0) => (u8::try_from(argument).unwrap(), 0),
        (0..=0xff, 0..=1) => (24, 1),
        (0..=0xffff, 0..=2) => (25, 2),
        (0..=0xffff_ffff, 0..=4) => (26, 4),
        _ => (27, 8),
    };
    [&[major << 5 | first][..], &argument.to_be_bytes()[8 - length..]].concat()
}

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0_usize), 1 => 1_usize..9]
}

/// A string in one piece, or in two. Text is not cut within a character, which serde_cbor alone would not mind.
fn string(major: u8, content: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    (width(), 0..=content.len(), prop::bool::weighted(0.2)).prop_map(move |(width, middle, in_pieces)| {
        let piece = |bytes: &[u8]| [head(major, bytes.len() as u64, width), bytes.to_vec()].concat();
        let (first, second) = content.split_at(middle);
        let within_a_character = major == 3 && str::from_utf8(first).is_err();
        if in_pieces && !within_a_character {
            [vec![major << 5 | 31], piece(first), piece(second), vec![0xff]].concat()
        } else {
            piece(&content)
        }
    })
}

/// Groups of items in an array or a map.
fn container(major: u8, groups: &[Vec<u8>], width: usize, indefinite: bool) -> Vec<u8> {
    let content = groups.concat();
    if indefinite {
        [vec![major << 5 | 31], content, vec![0xff]].concat()
    } else {
        [head(major, groups.len() as u64, width), content].concat()
    }
}

fn scalar() -> impl Strategy<Value = Vec<u8>> {
    let integer =
        (0_u64..70_000, width(), 0_u8..2).prop_map(|(value, width, major)| head(major, value, width));
    prop_oneof![
        4 => (0_u64..40, width()).prop_map(|(value, width)| head(0, value, width)),
        2 => integer,
        4 => bytes(40).prop_flat_map(|content| string(2, content)),
        2 => "[a-zé]{0,9}".prop_flat_map(|text| string(3, text.into_bytes())),
        1 => bytes(6).prop_map(|content| [head(3, content.len() as u64, 0), content].concat()),
        3 => Just(vec![0xf6]),
        1 => prop::sample::select(vec![vec![0xf4], vec![0xf5], vec![0xf7], vec![0xf9, 0, 0], vec![0xfa, 1, 2, 3, 4], vec![0xfb, 1, 2, 3, 4, 5, 6, 7, 8]]),
        1 => prop::sample::select(vec![0x1c_u8, 0x1f, 0x3d, 0x5e, 0x7c, 0x9d, 0xbe, 0xdc, 0xdf, 0xe0, 0xf3, 0xf8, 0xfc, 0xff]).prop_map(|byte| vec![byte, 0]),
    ]
}

/// Any value, but no tags: at the top of a parameter only serde_cbor ignores those.
fn value() -> impl Strategy<Value = Vec<u8>> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..4), width(), any::<bool>())
                .prop_map(|(items, width, indefinite)| container(4, &items, width, indefinite)),
            (vec((inner.clone(), inner), 0..3), width(), any::<bool>()).prop_map(
                |(pairs, width, indefinite)| {
                    let pairs: Vec<_> = pairs
                        .into_iter()
                        .map(|(key, value)| [key, value].concat())
                        .collect();
                    container(5, &pairs, width, indefinite)
                }
            ),
        ]
    })
}

/// Bytes as an array of small integers.
fn array_of_bytes() -> impl Strategy<Value = Vec<u8>> {
    let items = vec((prop_oneof![20 => 0_u64..256, 1 => 256_u64..300], width()), 0..12);
    (items, width(), any::<bool>()).prop_map(|(items, width, indefinite)| {
        let items: Vec<_> = items
            .into_iter()
            .map(|(value, width)| head(0, value, width))
            .collect();
        container(4, &items, width, indefinite)
    })
}

fn name(names: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(names).prop_flat_map(|name| string(3, name.as_bytes().to_vec()))
}

/// A name and a value that often fits it.
fn parameter() -> impl Strategy<Value = Vec<u8>> {
    let number = (0_u64..40, width()).prop_map(|(value, width)| head(0, value, width));
    let data = || {
        prop_oneof![
            bytes(40).prop_flat_map(|content| string(2, content)),
            array_of_bytes(),
            Just(vec![0xf6]),
        ]
    };
    let pair = prop_oneof![
        3 => (name(&["index", "range"]), number),
        2 => (name(&["data"]), data()),
        3 => (name(&["user_data", "nonce", "public_key"]), data()),
        1 => (name(&["index", "range", "data", "user_data", "nonce"]), value()),
        1 => (name(&["", "Index", "unknown", "é"]), value()),
    ];
    pair.prop_map(|(name, value)| [name, value].concat())
}

fn unusual_request() -> impl Strategy<Value = Vec<u8>> {
    const OPERATIONS: &[&str] = &[
        "DescribePCR",
        "ExtendPCR",
        "LockPCR",
        "LockPCRs",
        "DescribeNSM",
        "GetRandom",
        "Attestation",
        "Nothing",
    ];
    let parameters = (vec(parameter(), 0..6), width(), any::<bool>())
        .prop_map(|(parameters, width, indefinite)| container(5, &parameters, width, indefinite));
    let operand = prop_oneof![8 => parameters, 1 => scalar().prop_filter("an array is read as parameters in order", |bytes| bytes[0] >> 5 != 4)];
    let with_parameters =
        (name(OPERATIONS), operand).prop_map(|(name, operand)| [vec![0xa1], name, operand].concat());
    let request = prop_oneof![9 => with_parameters, 1 => name(OPERATIONS)];
    let end = prop_oneof![9 => Just(vec![]), 1 => bytes(3)];
    (request, end).prop_map(|(request, end)| [request, end].concat())
}
