//! What a client may write differently, and what it may not.

use std::borrow::Cow;

use nsm::{Cost, ErrorCode, MAX_REQUEST, Request, RequestError};

use crate::client::{ours, understood};

fn decode(bytes: &[u8]) -> Result<Request<'_>, RequestError> {
    Request::decode(bytes)
}

fn joined(pieces: &[&[u8]]) -> Vec<u8> {
    pieces.concat()
}

/// Each is accepted, and AWS's type takes it for the same.
fn same(expected: &Request<'_>, forms: &[&[u8]]) {
    for form in forms {
        assert_eq!(decode(form).as_ref(), Ok(expected), "{form:02x?}");
        let theirs = understood(form).unwrap();
        assert_eq!(&ours(&theirs), expected, "{form:02x?}");
    }
}

#[test]
fn integers_may_have_any_width() {
    same(
        &Request::DescribePcr { index: 3 },
        &[
            b"\xa1\x6bDescribePCR\xa1\x65index\x03",
            b"\xa1\x6bDescribePCR\xa1\x65index\x18\x03",
            b"\xa1\x6bDescribePCR\xa1\x65index\x19\x00\x03",
            b"\xa1\x6bDescribePCR\xa1\x65index\x1a\x00\x00\x00\x03",
            b"\xa1\x6bDescribePCR\xa1\x65index\x1b\x00\x00\x00\x00\x00\x00\x00\x03",
        ],
    );
    same(
        &Request::LockPcrs { range: 65535 },
        &[
            b"\xa1\x68LockPCRs\xa1\x65range\x19\xff\xff",
            b"\xa1\x68LockPCRs\xa1\x65range\x1b\x00\x00\x00\x00\x00\x00\xff\xff",
        ],
    );
}

#[test]
fn lengths_may_have_any_width_or_be_indefinite() {
    same(
        &Request::LockPcr { index: 16 },
        &[
            b"\xa1\x67LockPCR\xb8\x01\x65index\x10",
            b"\xa1\x67LockPCR\xbb\x00\x00\x00\x00\x00\x00\x00\x01\x65index\x10",
            b"\xa1\x78\x07LockPCR\xa1\x7b\x00\x00\x00\x00\x00\x00\x00\x05index\x10",
            b"\xa1\x7f\x64Lock\x60\x63PCR\xff\xbf\x7f\x65index\xff\x10\xff",
        ],
    );
    same(
        &Request::GetRandom,
        &[
            b"\x69GetRandom",
            b"\x79\x00\x09GetRandom",
            b"\x7f\x63Get\x66Random\xff",
        ],
    );
}

#[test]
fn parameters_may_come_in_any_order_and_with_unknown_ones() {
    let expected = Request::ExtendPcr {
        index: 20,
        data: Cow::Borrowed(b"xyz"),
    };
    same(
        &expected,
        &[
            b"\xa1\x69ExtendPCR\xa2\x65index\x14\x64data\x43xyz",
            b"\xa1\x69ExtendPCR\xa2\x64data\x43xyz\x65index\x14",
            b"\xa1\x69ExtendPCR\xa3\x64data\x43xyz\x64more\xa1\x82\x01\x5f\x41\x00\xff\xc1\xfb\x00\x00\x00\x00\x00\x00\x00\x00\x65index\x14",
            b"\xa1\x69ExtendPCR\xa4\x65range\x01\x65Index\xf6\x64data\x43xyz\x65index\x14",
        ],
    );
}

#[test]
fn bytes_may_be_a_string_an_array_or_text() {
    let expected = Request::ExtendPcr {
        index: 16,
        data: Cow::Borrowed(b"ab\x17"),
    };
    let head = b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data";
    let forms: [&[u8]; 8] = [
        b"\x43ab\x17",
        b"\x5b\x00\x00\x00\x00\x00\x00\x00\x03ab\x17",
        b"\x5f\x42ab\x40\x41\x17\xff",
        b"\x83\x18\x61\x18\x62\x17",
        b"\x9a\x00\x00\x00\x03\x19\x00\x61\x1a\x00\x00\x00\x62\x18\x17",
        b"\x9f\x18\x61\x18\x62\x17\xff",
        b"\x63ab\x17",
        b"\x7f\x61a\x62b\x17\xff",
    ];
    for form in forms {
        same(&expected, &[&joined(&[head, form])]);
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    let array: Vec<u8> = every_byte.iter().flat_map(|byte| [0x18, *byte]).collect();
    let expected = Request::ExtendPcr {
        index: 16,
        data: Cow::Owned(every_byte),
    };
    same(&expected, &[&joined(&[head, b"\x99\x01\x00", &array])]);
}

#[test]
fn bytes_in_one_piece_are_not_copied() {
    let request = b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x43xyz";
    let Ok(Request::ExtendPcr {
        data: Cow::Borrowed(data),
        ..
    }) = decode(request)
    else {
        panic!("not borrowed")
    };
    assert!(request.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn parameters_of_an_attestation_may_be_missing() {
    let head = b"\xa1\x6bAttestation";
    let nothing = Request::Attestation {
        user_data: None,
        nonce: None,
        public_key: None,
    };
    for form in [
        &b"\xa0"[..],
        b"\xbf\xff",
        b"\xa1\x65nonce\xf6",
        b"\xa3\x6apublic_key\xf6\x65nonce\xf6\x69user_data\xf6",
    ] {
        same(&nothing, &[&joined(&[head, form])]);
    }
    let nonce = Request::Attestation {
        user_data: None,
        nonce: Some(Cow::Borrowed(&[1])),
        public_key: None,
    };
    for form in [
        &b"\xa1\x65nonce\x41\x01"[..],
        b"\xa2\x65nonce\x81\x01\x69user_data\xf6",
    ] {
        same(&nonce, &[&joined(&[head, form])]);
    }
}

#[test]
fn an_operation_without_parameters_may_have_null_for_them() {
    same(
        &Request::DescribeNsm,
        &[b"\xa1\x6bDescribeNSM\xf6", b"\xa1\x6bDescribeNSM\xf7"],
    );
    same(&Request::GetRandom, &[b"\xa1\x69GetRandom\xf6"]);
}

/// Each is refused, by AWS's type too.
fn refused(expected: &RequestError, requests: &[&[u8]]) {
    assert_eq!(expected.code(), ErrorCode::InvalidOperation);
    for request in requests {
        assert_eq!(decode(request).as_ref(), Err(expected), "{request:02x?}");
        assert!(understood(request).is_none(), "{request:02x?}");
    }
}

#[test]
fn operations_that_are_unknown_or_have_another_form_are_refused() {
    refused(
        &RequestError::UnknownOperation,
        &[
            b"\x60",
            b"\x69getRandom",
            b"\x6aGetRandom\x00",
            b"\x6bDescribePCR",
            b"\x6bAttestation",
            b"\xa1\x65Error\x6dInternalError",
            b"\xa1\x60\xa0",
        ],
    );
    refused(
        &RequestError::Malformed { position: 11 },
        &[b"\xa1\x69GetRandom\xa0", b"\xa1\x69GetRandom\x80"],
    );
}

#[test]
fn parameters_that_are_missing_or_doubled_are_refused() {
    refused(
        &RequestError::MissingParameter { name: "index" },
        &[
            b"\xa1\x6bDescribePCR\xa0",
            b"\xa1\x67LockPCR\xa1\x65range\x10",
            b"\xa1\x69ExtendPCR\xa1\x64data\x40",
        ],
    );
    refused(
        &RequestError::MissingParameter { name: "data" },
        &[b"\xa1\x69ExtendPCR\xa1\x65index\x10"],
    );
    refused(
        &RequestError::MissingParameter { name: "range" },
        &[b"\xa1\x68LockPCRs\xa1\x65index\x10"],
    );
    refused(
        &RequestError::DuplicateParameter { name: "index" },
        &[b"\xa1\x6bDescribePCR\xa2\x65index\x10\x65index\x10"],
    );
    refused(
        &RequestError::DuplicateParameter { name: "data" },
        &[b"\xa1\x69ExtendPCR\xa3\x64data\x40\x65index\x10\x64data\x40"],
    );
    refused(
        &RequestError::DuplicateParameter { name: "nonce" },
        &[
            b"\xa1\x6bAttestation\xa2\x65nonce\xf6\x65nonce\x41\x01",
            b"\xa1\x6bAttestation\xa2\x65nonce\x40\x65nonce\xf6",
        ],
    );
}

#[test]
fn values_of_another_type_are_refused_where_they_are() {
    let head = b"\xa1\x6bDescribePCR\xa1\x65index";
    for value in [
        &b"\x1a\x00\x01\x00\x00"[..],            // 65536
        b"\x1b\x00\x00\x00\x01\x00\x00\x00\x00", // 2^32
        b"\x20",                                 // -1
        b"\xf9\x4c\x00",                         // 16.0
        b"\x6216",                               // "16"
        b"\x41\x10",                             // h'10'
        b"\xf6",                                 // null
        b"\xf5",                                 // true
        b"\x81\x10",                             // [16]
        b"\xff",
    ] {
        let position = head.len();
        refused(&RequestError::Malformed { position }, &[&joined(&[head, value])]);
    }
    let head = b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data";
    for (value, offset) in [
        (&b"\xf6"[..], 0),            // null, but data is not optional
        (b"\x10", 0),                 // 16
        (b"\xa0", 0),                 // {}
        (b"\x81\x19\x01\x00", 1),     // [256]
        (b"\x82\x00\x20", 2),         // [0, -1]
        (b"\x81\x41\x00", 1),         // [h'00']
        (b"\x61\xff", 0),             // no UTF-8
        (b"\x5f\x61a\xff", 1),        // text within a byte string
        (b"\x5f\x5f\x40\xff\xff", 1), // indefinite within indefinite
    ] {
        let bytes = joined(&[head, value]);
        let error = decode(&bytes).unwrap_err();
        let RequestError::Malformed { position } = error else {
            panic!("{error:?} for {value:02x?}")
        };
        // A text or byte string in pieces is one value, and its position may be that of its head.
        assert!(
            (head.len()..=head.len() + offset).contains(&position),
            "{value:02x?}: {position}"
        );
        assert!(understood(&bytes).is_none(), "{value:02x?}");
    }
    let undefined = b"\xa1\x6bAttestation\xa1\x65nonce\xf7";
    refused(&RequestError::Malformed { position: 20 }, &[undefined]);
}

#[test]
fn every_prefix_of_a_request_is_refused() {
    for request in [
        &b"\x69GetRandom"[..],
        b"\xa1\x69ExtendPCR\xa2\x65index\x18\x10\x64data\x9f\x18\x61\x02\xff",
        b"\xa1\x6bAttestation\xbf\x69user_data\x42ab\x65nonce\x5f\x41n\xff\x63new\xa1\x01\x82\x02\xf6\xff",
    ] {
        assert!(decode(request).is_ok());
        for length in 0..request.len() {
            let prefix = &request[..length];
            let error = decode(prefix).unwrap_err();
            assert!(
                matches!(error, RequestError::Malformed { position } if position <= length),
                "{error:?}"
            );
            assert_eq!(error.code(), ErrorCode::InvalidOperation);
        }
    }
}

#[test]
fn bytes_after_a_request_are_refused() {
    refused(
        &RequestError::TrailingBytes { position: 10 },
        &[b"\x69GetRandom\x00", b"\x69GetRandom\xff"],
    );
    refused(
        &RequestError::TrailingBytes { position: 21 },
        &[b"\xa1\x6bDescribePCR\xa1\x65index\x10\xf6"],
    );
}

/// What serde_cbor would read, though nothing writes it so.
#[test]
fn forms_that_no_client_writes_are_refused() {
    for request in [
        &b"\x06"[..],                                                          // number of a variant
        b"\x49GetRandom",                                                      // byte string for a name
        b"\xc0\x69GetRandom",                                                  // tag
        b"\x82\x69GetRandom\xf6",                                              // array for a variant
        b"\xa1\x6bDescribePCR\x81\x10",                                        // array for parameters
        b"\xa1\x6bDescribePCR\xa1\x00\x10",                                    // number of a parameter
        b"\xa1\x6bDescribePCR\xa1\x45index\x10",                               // byte string for a parameter
        b"\xa1\x6bDescribePCR\xa1\x65index\xc0\x10",                           // tag
        b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x7f\x61\xc3\x61\xa9\xff", // a character in two pieces
    ] {
        let error = decode(request).unwrap_err();
        assert!(matches!(error, RequestError::Malformed { .. }), "{error:?}");
        assert!(understood(request).is_some(), "{request:02x?}");
    }
    // And those that it would not read.
    for request in [
        &b"\xb8\x01\x69GetRandom\xf6"[..],
        b"\xbf\x69GetRandom\xf6\xff",
        b"\xa2\x69GetRandom\xf6\x69GetRandom\xf6",
    ] {
        refused(&RequestError::Malformed { position: 0 }, &[request]);
    }
}

/// `depth` arrays within each other, as the value of an unknown parameter.
fn nested(depth: usize) -> Vec<u8> {
    let arrays = [&vec![0x81; depth - 1][..], b"\x80"].concat();
    joined(&[b"\xa1\x67LockPCR\xa2\x61x", &arrays, b"\x65index\x10"])
}

#[test]
fn unknown_values_may_be_nested_but_not_without_end() {
    let head = b"\xa1\x67LockPCR\xa2\x61x".len();
    assert_eq!(decode(&nested(16)), Ok(Request::LockPcr { index: 16 }));
    let too_deep = Err(RequestError::TooDeep { position: head + 16 });
    assert_eq!(decode(&nested(17)), too_deep);
    assert_eq!(decode(&nested(4000)), too_deep);
    for opening in [0x9f, 0xa1, 0xbf, 0xc0] {
        let all = joined(&[b"\xa1\x67LockPCR\xa2\x61x", &vec![opening; 4000]]);
        assert_eq!(decode(&all), too_deep, "{opening:#x}");
    }
}

#[test]
fn a_claimed_length_costs_nothing() {
    let head = b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data";
    for claim in [0x5b_u8, 0x7b, 0x9b, 0xbb] {
        for length in [u64::MAX, u64::MAX >> 1, 1 << 40, u64::from(u32::MAX)] {
            let bytes = joined(&[head, &[claim], &length.to_be_bytes(), &[0; 100]]);
            assert!(
                matches!(decode(&bytes), Err(RequestError::Malformed { .. })),
                "{claim:#x} {length:#x}"
            );
        }
    }
    let unknown = joined(&[
        b"\xa1\x67LockPCR\xa2\x61x\x9b",
        &u64::MAX.to_be_bytes(),
        &[0; 100],
    ]);
    assert!(matches!(decode(&unknown), Err(RequestError::Malformed { .. })));
    let parameters = joined(&[b"\xa1\x67LockPCR\xbb", &u64::MAX.to_be_bytes(), b"\x65index\x10"]);
    assert!(matches!(decode(&parameters), Err(RequestError::Malformed { .. })));
}

#[test]
fn a_request_may_have_4096_bytes() {
    let head = b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x59";
    let largest = u16::try_from(MAX_REQUEST - head.len() - 2).unwrap();
    let request = |length: u16| joined(&[head, &length.to_be_bytes(), &vec![5; usize::from(length)]]);
    assert_eq!(MAX_REQUEST, 0x1000);
    let bytes = request(largest);
    assert_eq!(bytes.len(), 0x1000);
    assert!(decode(&bytes).is_ok());

    let error = decode(&request(largest + 1)).map(drop).unwrap_err();
    assert_eq!(error, RequestError::TooLarge { length: 0x1001 });
    assert_eq!(error.code(), ErrorCode::InputTooLarge);
    assert_eq!(
        decode(&vec![0; 1 << 20]),
        Err(RequestError::TooLarge { length: 1 << 20 })
    );
}

#[test]
fn a_signature_costs_more_than_a_change_and_that_more_than_a_look() {
    let cost = |bytes: &[u8]| decode(bytes).unwrap().cost();
    assert_eq!(cost(b"\x69GetRandom"), Cost::Lookup);
    assert_eq!(cost(b"\x6bDescribeNSM"), Cost::Lookup);
    assert_eq!(cost(b"\xa1\x6bDescribePCR\xa1\x65index\x10"), Cost::Lookup);
    assert_eq!(
        cost(b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x40"),
        Cost::Change
    );
    assert_eq!(cost(b"\xa1\x67LockPCR\xa1\x65index\x10"), Cost::Change);
    assert_eq!(cost(b"\xa1\x68LockPCRs\xa1\x65range\x10"), Cost::Change);
    assert_eq!(cost(b"\xa1\x6bAttestation\xa0"), Cost::Signature);
    assert!(Cost::Lookup < Cost::Change && Cost::Change < Cost::Signature);
}
