//! The bytes of each request and each response, written down from the specification.

use aws_nitro_enclaves_nsm_api::api::Request as ApiRequest;
use nsm::{ErrorCode, ModuleId, Pcr, Request, Response};

use crate::client::{attestation, encoded, ours};
use crate::machine::{MODULE_ID, answered, attestor, pcr};

#[test]
fn each_request_has_the_bytes_that_the_client_sends() {
    let known: [(ApiRequest, &[u8]); 11] = [
        (
            ApiRequest::DescribePCR { index: 16 },
            b"\xa1\x6bDescribePCR\xa1\x65index\x10",
        ),
        (
            ApiRequest::DescribePCR { index: 24 },
            b"\xa1\x6bDescribePCR\xa1\x65index\x18\x18",
        ),
        (
            ApiRequest::DescribePCR { index: 65535 },
            b"\xa1\x6bDescribePCR\xa1\x65index\x19\xff\xff",
        ),
        (
            ApiRequest::ExtendPCR {
                index: 16,
                data: vec![1, 2, 3],
            },
            b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x43\x01\x02\x03",
        ),
        (
            ApiRequest::ExtendPCR {
                index: 31,
                data: vec![],
            },
            b"\xa1\x69ExtendPCR\xa2\x65index\x18\x1f\x64data\x40",
        ),
        (
            ApiRequest::LockPCR { index: 17 },
            b"\xa1\x67LockPCR\xa1\x65index\x11",
        ),
        (
            ApiRequest::LockPCRs { range: 32 },
            b"\xa1\x68LockPCRs\xa1\x65range\x18\x20",
        ),
        (ApiRequest::DescribeNSM, b"\x6bDescribeNSM"),
        (ApiRequest::GetRandom, b"\x69GetRandom"),
        (
            attestation(None, None, None),
            b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\xf6\x6apublic_key\xf6",
        ),
        (
            attestation(Some(b"u"), Some(b"nn"), Some(b"")),
            b"\xa1\x6bAttestation\xa3\x69user_data\x41u\x65nonce\x42nn\x6apublic_key\x40",
        ),
    ];
    for (request, bytes) in &known {
        assert_eq!(&encoded(request), bytes, "{request:?}");
        assert_eq!(Request::decode(bytes).as_ref(), Ok(&ours(request)));
    }
}

fn with_register(head: &[u8], byte: u8) -> Vec<u8> {
    [head, b"\x58\x30", &[byte; 48]].concat()
}

#[test]
fn each_response_has_the_specified_bytes() {
    let module_id = ModuleId::new("i-1-enc2").unwrap();
    let random = [7; 256];
    let known: [(Response<'_>, Vec<u8>); 7] = [
        (
            Response::DescribePcr {
                locked: true,
                value: pcr(9),
            },
            with_register(b"\xa1\x6bDescribePCR\xa2\x64lock\xf5\x64data", 9),
        ),
        (
            Response::DescribePcr {
                locked: false,
                value: pcr(0),
            },
            with_register(b"\xa1\x6bDescribePCR\xa2\x64lock\xf4\x64data", 0),
        ),
        (
            Response::ExtendPcr { value: pcr(8) },
            with_register(b"\xa1\x69ExtendPCR\xa1\x64data", 8),
        ),
        (Response::LockPcr, b"\x67LockPCR".to_vec()),
        (Response::LockPcrs, b"\x68LockPCRs".to_vec()),
        (
            Response::DescribeNsm {
                module_id: &module_id,
                locked_pcrs: &[0, 23, 24, 31],
            },
            [
                &b"\xa1\x6bDescribeNSM\xa7\x6dversion_major\x01\x6dversion_minor\x00\x6dversion_patch\x00"[..],
                b"\x69module_id\x68i-1-enc2\x68max_pcrs\x18\x20\x6blocked_pcrs\x84\x00\x17\x18\x18\x18\x1f",
                b"\x66digest\x66SHA384",
            ]
            .concat(),
        ),
        (
            Response::GetRandom { random: &random },
            [&b"\xa1\x69GetRandom\xa1\x66random\x59\x01\x00"[..], &[7; 256]].concat(),
        ),
    ];
    for (response, bytes) in known {
        assert_eq!(response.encode(), bytes, "{response:?}");
    }
}

#[test]
fn documents_of_each_width_are_wrapped() {
    let wrapped = |length: usize, head: &[u8]| {
        let document = vec![3; length];
        let bytes = Response::Attestation { document: &document }.encode();
        let expected = [&b"\xa1\x6bAttestation\xa1\x68document"[..], head, &document].concat();
        assert_eq!(bytes, expected, "{length}");
    };
    wrapped(0, b"\x40");
    wrapped(23, b"\x57");
    wrapped(24, b"\x58\x18");
    wrapped(255, b"\x58\xff");
    wrapped(256, b"\x59\x01\x00");
    wrapped(5000, b"\x59\x13\x88");
}

#[test]
fn errors_have_their_nine_names_in_order() {
    let names = [
        "Success",
        "InvalidArgument",
        "InvalidIndex",
        "InvalidResponse",
        "ReadOnlyIndex",
        "InvalidOperation",
        "BufferTooSmall",
        "InputTooLarge",
        "InternalError",
    ];
    assert_eq!(ErrorCode::ALL.map(ErrorCode::text), names);
    assert_eq!(
        Response::Error(ErrorCode::ReadOnlyIndex).encode(),
        b"\xa1\x65Error\x6dReadOnlyIndex"
    );
}

#[test]
fn a_new_enclave_answers_byte_for_byte() {
    let zero = with_register(b"\xa1\x6bDescribePCR\xa2\x64lock\xf4\x64data", 0);
    let pcr0 = with_register(b"\xa1\x6bDescribePCR\xa2\x64lock\xf5\x64data", 0xa0);
    let mut random = b"\xa1\x69GetRandom\xa1\x66random\x59\x01\x00".to_vec();
    random.extend(0..=255);
    let nsm = [
        &b"\xa1\x6bDescribeNSM\xa7\x6dversion_major\x01\x6dversion_minor\x00\x6dversion_patch\x00"[..],
        b"\x69module_id\x78\x27",
        MODULE_ID.as_bytes(),
        b"\x68max_pcrs\x18\x20\x6blocked_pcrs\x90",
        &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        b"\x66digest\x66SHA384",
    ]
    .concat();
    // head -c 48 /dev/zero | cat - <(printf '\1\2\3') | sha384sum
    let value = Pcr::from_hex(
        "cb178fcd3f328244c05c6248723fd068b3a1dda878e1ab8be911098f199958add55d0c27f04826d27b44d949a650694e",
    );
    let extended = [&b"\xa1\x69ExtendPCR\xa1\x64data\x58\x30"[..], &value.unwrap().0].concat();
    let document = b"\xa1\x6bAttestation\xa1\x68document\x45\x00\x00\x00\x00\x00".to_vec();

    let mut attestor = attestor();
    let exchanges: [(&[u8], Vec<u8>); 9] = [
        (b"\xa1\x6bDescribePCR\xa1\x65index\x10", zero),
        (b"\xa1\x6bDescribePCR\xa1\x65index\x00", pcr0),
        (b"\x6bDescribeNSM", nsm),
        (b"\x69GetRandom", random),
        (
            b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x43\x01\x02\x03",
            extended,
        ),
        (b"\xa1\x67LockPCR\xa1\x65index\x10", b"\x67LockPCR".to_vec()),
        (b"\xa1\x68LockPCRs\xa1\x65range\x18\x20", b"\x68LockPCRs".to_vec()),
        (
            b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\xf6\x6apublic_key\xf6",
            document,
        ),
        (
            b"\xa1\x67LockPCR\xa1\x65index\x10",
            b"\xa1\x65Error\x6dReadOnlyIndex".to_vec(),
        ),
    ];
    for (request, response) in exchanges {
        assert_eq!(answered(&mut attestor, request).0, response, "{request:?}");
    }
}
