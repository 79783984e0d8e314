//! What is answered when: indices, locks, lengths, and a machine that fails.

use aws_nitro_enclaves_nsm_api::api::{
    ErrorCode as ApiErrorCode, Request as ApiRequest, Response as ApiResponse,
};
use nsm::{
    Answer, Attestor, ErrorCode, MAX_FIELD, PcrError, Platform, Refusal, Reply, Request, RequestError,
    Response,
};

use crate::client::{attestation, decoded, encoded};
use crate::machine::{Issued, MODULE_ID, Machine, NOW_MS, answered, attestor, bank, pcr, reply};

fn ask(attestor: &mut Attestor, request: &ApiRequest) -> ApiResponse {
    decoded(&answered(attestor, &encoded(request)).0)
}

fn describe(attestor: &mut Attestor, index: u16) -> (bool, Vec<u8>) {
    match ask(attestor, &ApiRequest::DescribePCR { index }) {
        ApiResponse::DescribePCR { lock, data } => (lock, data),
        other => panic!("{other:?}"),
    }
}

fn extend(index: u16) -> ApiRequest {
    ApiRequest::ExtendPCR { index, data: vec![1] }
}

fn refusal(attestor: &mut Attestor, request: &ApiRequest) -> Refusal {
    let (bytes, refusal) = answered(attestor, &encoded(request));
    let refusal = refusal.unwrap();
    assert_eq!(bytes, Response::Error(refusal.code()).encode());
    refusal
}

#[test]
fn there_are_32_registers() {
    let mut attestor = attestor();
    let before = attestor.bank().clone();
    for index in 0..32 {
        assert_eq!(describe(&mut attestor, index).0, index < 16, "PCR{index}");
    }
    for index in [32, 33, 255, 256, 65535] {
        for request in [
            ApiRequest::DescribePCR { index },
            extend(index),
            ApiRequest::LockPCR { index },
        ] {
            let refusal = refusal(&mut attestor, &request);
            assert!(
                matches!(refusal, Refusal::Pcr(PcrError::OutOfRange { found }) if found == index),
                "{refusal:?}"
            );
            assert_eq!(refusal.code(), ErrorCode::InvalidIndex);
        }
    }
    assert_eq!(attestor.bank(), &before);
}

#[test]
fn registers_of_the_platform_are_read_only() {
    let mut attestor = attestor();
    let before = attestor.bank().clone();
    for index in 0..16 {
        for request in [extend(index), ApiRequest::LockPCR { index }] {
            let refusal = refusal(&mut attestor, &request);
            assert!(
                matches!(refusal, Refusal::Pcr(PcrError::Locked { index: found }) if found == index),
                "{refusal:?}"
            );
            assert_eq!(refusal.code(), ErrorCode::ReadOnlyIndex);
        }
    }
    assert_eq!(attestor.bank(), &before);
}

#[test]
fn a_register_can_be_extended_until_it_is_locked() {
    let mut attestor = attestor();
    for index in 16..32 {
        let ApiResponse::ExtendPCR { data: first } = ask(&mut attestor, &extend(index)) else {
            panic!("not extended")
        };
        assert_eq!(describe(&mut attestor, index), (false, first.clone()));
        assert!(matches!(
            ask(&mut attestor, &ApiRequest::LockPCR { index }),
            ApiResponse::LockPCR
        ));
        assert_eq!(describe(&mut attestor, index), (true, first.clone()));
        let refusal = refusal(&mut attestor, &extend(index));
        assert_eq!(refusal.code(), ErrorCode::ReadOnlyIndex);
        assert_eq!(describe(&mut attestor, index), (true, first));
    }
}

#[test]
fn a_range_can_be_locked_up_to_32_and_again() {
    let mut attestor = attestor();
    for (range, unlocked) in [(0, 16), (16, 16), (20, 20), (18, 20), (32, 32), (32, 32)] {
        let response = ask(&mut attestor, &ApiRequest::LockPCRs { range });
        assert!(matches!(response, ApiResponse::LockPCRs), "{range}: {response:?}");
        for index in 0..32 {
            assert_eq!(
                describe(&mut attestor, index).0,
                index < unlocked,
                "{range} PCR{index}"
            );
        }
    }
    let mut attestor = crate::machine::attestor();
    for range in [33, 34, 65535] {
        let refusal = refusal(&mut attestor, &ApiRequest::LockPCRs { range });
        assert_eq!(refusal.code(), ErrorCode::InvalidIndex);
    }
    assert_eq!(attestor.bank(), &bank());
}

#[test]
fn a_lock_in_between_is_kept_by_describe_nsm() {
    let mut attestor = attestor();
    ask(&mut attestor, &ApiRequest::LockPCR { index: 30 });
    let ApiResponse::DescribeNSM {
        version_major,
        version_minor,
        version_patch,
        module_id,
        max_pcrs,
        locked_pcrs,
        digest,
    } = ask(&mut attestor, &ApiRequest::DescribeNSM)
    else {
        panic!("another response")
    };
    assert_eq!(
        (version_major, version_minor, version_patch, max_pcrs),
        (1, 0, 0, 32)
    );
    assert_eq!(module_id, MODULE_ID);
    assert_eq!(locked_pcrs, (0..16).chain([30]).collect());
    assert_eq!(digest, aws_nitro_enclaves_nsm_api::api::Digest::SHA384);
}

#[test]
fn a_document_states_the_locked_registers_and_what_the_guest_gave() {
    let mut attestor = attestor();
    for index in [31, 20] {
        ask(&mut attestor, &extend(index));
        ask(&mut attestor, &ApiRequest::LockPCR { index });
    }
    ask(&mut attestor, &extend(16));
    let mut machine = Machine::new();
    let request = encoded(&attestation(Some(b"user"), None, Some(b"")));

    let Reply { bytes, refusal } = reply(&mut attestor, &request, &mut machine);

    assert!(refusal.is_none());
    assert!(matches!(decoded(&bytes), ApiResponse::Attestation { document } if document == [0; 5]));
    let value = |index| attestor.bank().value(index).unwrap();
    let indices: Vec<u16> = (0..16).chain([20, 31]).collect();
    let expected = Issued {
        module_id: MODULE_ID.into(),
        timestamp_ms: NOW_MS,
        pcrs: indices.into_iter().map(|index| (index, value(index))).collect(),
        public_key: Some(vec![]),
        user_data: Some(b"user".to_vec()),
        nonce: None,
    };
    assert_eq!(expected.pcrs[0], (0, pcr(0xa0)));
    assert_eq!(machine.issued, [expected]);
}

#[test]
fn each_field_may_have_1024_bytes() {
    assert_eq!(MAX_FIELD, 1024);
    let (fits, too_long) = ([1; 1024], [2; 1025]);
    let mut attestor = attestor();
    let mut machine = Machine::new();
    let all = encoded(&attestation(Some(&fits), Some(&fits), Some(&fits)));
    assert!(reply(&mut attestor, &all, &mut machine).refusal.is_none());
    let [issued] = &machine.issued[..] else {
        panic!("one document")
    };
    for field in [&issued.user_data, &issued.nonce, &issued.public_key] {
        assert_eq!(field.as_deref(), Some(&fits[..]));
    }
    for (name, request) in [
        ("user_data", attestation(Some(&too_long), Some(&fits), None)),
        ("nonce", attestation(Some(&fits), Some(&too_long), None)),
        ("public_key", attestation(None, Some(&fits), Some(&too_long))),
    ] {
        let reply = reply(&mut attestor, &encoded(&request), &mut machine);
        assert!(matches!(
            decoded(&reply.bytes),
            ApiResponse::Error(ApiErrorCode::InputTooLarge)
        ));
        let refusal = reply.refusal.unwrap();
        assert!(
            matches!(refusal, Refusal::FieldTooLarge { field, length: 1025 } if field == name),
            "{refusal:?}"
        );
    }
    assert_eq!(machine.issued.len(), 1, "nothing else was signed");
}

#[test]
fn data_to_extend_with_may_fill_the_request() {
    let mut attestor = attestor();
    let extend = |length| {
        encoded(&ApiRequest::ExtendPCR {
            index: 16,
            data: vec![1; length],
        })
    };
    let most = 0x1000 - extend(1000).len() + 1000;
    assert_eq!(extend(most).len(), 0x1000);
    let response = decoded(&answered(&mut attestor, &extend(most)).0);
    assert!(matches!(response, ApiResponse::ExtendPCR { .. }), "{response:?}");

    let before = attestor.bank().clone();
    let (bytes, refusal) = answered(&mut attestor, &extend(most + 1));
    assert!(matches!(
        decoded(&bytes),
        ApiResponse::Error(ApiErrorCode::InputTooLarge)
    ));
    assert!(matches!(
        refusal,
        Some(Refusal::Request(RequestError::TooLarge { length: 0x1001 }))
    ));
    assert_eq!(attestor.bank(), &before);
}

#[test]
fn what_is_no_request_is_an_invalid_operation() {
    let mut attestor = attestor();
    for bytes in [
        &b""[..],
        b"\x00",
        b"\xff",
        b"\x64Nope",
        b"\xa1\x64Nope\xa0",
        b"\x69GetRandom\x00",
    ] {
        let (response, refusal) = answered(&mut attestor, bytes);
        assert_eq!(response, b"\xa1\x65Error\x70InvalidOperation", "{bytes:02x?}");
        assert!(matches!(refusal, Some(Refusal::Request(_))));
    }
}

#[test]
fn a_machine_that_fails_is_an_internal_error() {
    let mut attestor = attestor();
    let mut machine = Machine::new();
    machine.works = false;
    let random = reply(&mut attestor, b"\x69GetRandom", &mut machine);
    assert_eq!(random.bytes, b"\xa1\x65Error\x6dInternalError");
    assert!(matches!(random.refusal, Some(Refusal::Random(error)) if error.to_string() == "no entropy"));
    let document = reply(
        &mut attestor,
        &encoded(&attestation(None, None, None)),
        &mut machine,
    );
    assert_eq!(document.bytes, b"\xa1\x65Error\x6dInternalError");
    assert!(matches!(document.refusal, Some(Refusal::Issue(error)) if error.to_string() == "no key"));
}

#[test]
fn a_document_may_fill_the_response() {
    let mut attestor = attestor();
    let mut machine = Machine::new();
    let request = encoded(&attestation(None, None, None));
    machine.document_length = 0x3000 - 26;
    let fits = reply(&mut attestor, &request, &mut machine);
    assert!(fits.refusal.is_none());
    assert_eq!(fits.bytes.len(), 0x3000);

    machine.document_length += 1;
    let too_long = reply(&mut attestor, &request, &mut machine);
    assert_eq!(too_long.bytes, b"\xa1\x65Error\x6dInternalError");
    assert!(matches!(too_long.refusal, Some(Refusal::DocumentTooLarge { length }) if length == 0x3000 - 25));
}

#[test]
fn a_change_is_made_when_it_is_committed() {
    let mut attestor = attestor();
    let before = attestor.bank().clone();
    let request = encoded(&extend(16));
    let mut machine = Machine::new();

    let Answer::Change(change) = attestor.answer(&request, &mut machine) else {
        panic!("nothing changes")
    };
    let promised = change.response().to_vec();
    drop(change);
    assert_eq!(attestor.bank(), &before, "dropped");

    let Answer::Change(change) = attestor.answer(&request, &mut machine) else {
        panic!("nothing changes")
    };
    let Reply { bytes, refusal } = change.abandon();
    assert_eq!(bytes, b"\xa1\x65Error\x6dInternalError");
    assert!(matches!(refusal, Some(Refusal::Abandoned)));
    assert_eq!(attestor.bank(), &before, "abandoned");

    let Answer::Change(change) = attestor.answer(&request, &mut machine) else {
        panic!("nothing changes")
    };
    let written = nsm::PcrBank::try_from(&change.snapshot()).unwrap();
    assert_eq!(change.response(), promised);
    let Reply { bytes, refusal } = change.commit();
    assert_eq!((bytes, refusal.is_none()), (promised, true));
    assert_eq!(attestor.bank(), &written, "committed");
    assert_ne!(attestor.bank(), &before);
}

#[test]
fn a_request_may_be_decoded_before_it_is_answered() {
    let mut attestor = attestor();
    let mut machine: Box<dyn Platform> = Box::new(Machine::new());
    let request = Request::decode(b"\x69GetRandom").unwrap();
    let Answer::Reply(reply) = attestor.fulfil(&request, &mut *machine) else {
        panic!("nothing changes")
    };
    assert!(matches!(decoded(&reply.bytes), ApiResponse::GetRandom { random } if random.len() == 256));
}

#[test]
fn what_changes_nothing_is_not_written_down() {
    let mut attestor = attestor();
    let mut machine = Machine::new();
    for request in [
        ApiRequest::DescribeNSM,
        ApiRequest::GetRandom,
        ApiRequest::DescribePCR { index: 16 },
        ApiRequest::LockPCRs { range: 16 },
        attestation(None, None, None),
        ApiRequest::LockPCR { index: 0 },
        extend(0),
    ] {
        let answer = attestor.answer(&encoded(&request), &mut machine);
        assert!(matches!(answer, Answer::Reply(_)), "{request:?}");
    }
}
