//! Requests to the security module of an enclave that has just started.

use aws_nitro_enclaves_nsm_api::api::{Request as ApiRequest, Response as ApiResponse};
use nsm::{
    Answer, AttestationContent, Attestor, MAX_FIELD, MAX_RESPONSE, MeasuredImage, ModuleId, ParentIdentity,
    Pcr, PcrBank, Platform, PlatformError, Request,
};

/// Each request has an answer that the client's library reads; a locked register neither changes nor opens; and whatever is
/// accepted, the client's library takes for the same request.
pub(crate) fn check(input: &[u8]) {
    let mut attestor = attestor();
    let before = attestor.bank().clone();
    let (reply, changes) = match attestor.answer(input, &mut Machine) {
        Answer::Reply(reply) => (reply, false),
        Answer::Change(change) => (change.commit(), true),
    };
    let after = attestor.bank();
    assert_eq!(*after != before, changes, "whether registers change");
    assert!(reply.bytes.len() <= MAX_RESPONSE);
    let response = serde_cbor::from_slice(&reply.bytes).expect("a response");
    let is_error = matches!(response, ApiResponse::Error(_));
    assert_eq!(is_error, reply.refusal.is_some(), "whether it is refused");
    assert!(!(is_error && changes), "refused and done");
    for index in (0..32).filter(|index| before.is_locked(*index) == Ok(true)) {
        assert_eq!(after.is_locked(index), Ok(true), "PCR{index}");
        assert_eq!(after.value(index), before.value(index), "PCR{index}");
    }
    if let Ok(request) = Request::decode(input) {
        let theirs: ApiRequest =
            serde_cbor::from_slice(input).unwrap_or_else(|_| panic!("only accepted here: {request:?}"));
        let canonical = serde_cbor::to_vec(&theirs).expect("it was read");
        assert_eq!(Request::decode(&canonical), Ok(request));
    }
}

fn attestor() -> Attestor {
    let [pcr0, pcr1, pcr2, pcr8] = [0, 1, 2, 8].map(|byte| Pcr([byte; 48]));
    let image = MeasuredImage {
        pcr0,
        pcr1,
        pcr2,
        pcr8: Some(pcr8),
    };
    let parent = ParentIdentity::new(None, "i-0a22e5c5f24d22174").expect("an instance id");
    let module = ModuleId::new("i-0a22e5c5f24d22174-enc0191cceb42891234").expect("a module id");
    Attestor::new(module, PcrBank::at_boot(&image, &parent, false))
}

/// Without time, chance or keys.
struct Machine;

impl Platform for Machine {
    fn now_ms(&mut self) -> u64 {
        0
    }

    fn fill_random(&mut self, bytes: &mut [u8]) -> Result<(), PlatformError> {
        bytes.fill(0);
        Ok(())
    }

    fn issue_document(&mut self, content: &AttestationContent<'_>) -> Result<Vec<u8>, PlatformError> {
        for field in [content.user_data, content.nonce, content.public_key] {
            assert!(field.is_none_or(|field| field.len() <= MAX_FIELD));
        }
        Ok(vec![0; 5])
    }
}
