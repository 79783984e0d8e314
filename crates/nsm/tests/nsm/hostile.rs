//! Bytes that are nearly requests, or not at all. The guest and its VMM may send anything. `cargo xtask fuzz nsm-request` is for
//! long runs.

use aws_nitro_enclaves_nsm_api::api::Response as ApiResponse;
use nsm::{Answer, Attestor, MAX_RESPONSE, Request};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::client::{decoded, ours, understood};
use crate::corpus;
use crate::machine::{Machine, attestor};

/// Gives `input` to an enclave's module and checks what must hold for any input.
fn survives(attestor: &mut Attestor, machine: &mut Machine, input: &[u8]) {
    machine.issued.clear();
    let before = attestor.bank().clone();
    let (reply, changes) = match attestor.answer(input, machine) {
        Answer::Reply(reply) => (reply, false),
        Answer::Change(change) => (change.commit(), true),
    };
    assert_eq!(attestor.bank() != &before, changes);
    assert!(reply.bytes.len() <= MAX_RESPONSE);
    let is_error = matches!(decoded(&reply.bytes), ApiResponse::Error(_));
    assert_eq!(is_error, reply.refusal.is_some());
    assert!(!(is_error && changes));
    for index in 0..32 {
        let was_locked = before.is_locked(index).unwrap();
        assert!(
            !was_locked || attestor.bank().is_locked(index).unwrap(),
            "PCR{index} was unlocked"
        );
        assert!(
            !was_locked || attestor.bank().value(index) == before.value(index),
            "PCR{index} was changed"
        );
    }
    // Whatever is accepted, the client's own type takes for the same.
    if let Ok(request) = Request::decode(input) {
        let theirs = understood(input).unwrap_or_else(|| panic!("only accepted here: {request:?}"));
        assert_eq!(ours(&theirs), request);
    }
}

/// One change of a request.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
    Truncate(usize),
    Splice(usize, usize),
}

impl Mutation {
    /// Positions are taken modulo the length. `other` is another request, to take a piece of.
    fn apply(&self, input: &mut Vec<u8>, other: &[u8]) {
        let length = input.len().max(1);
        let end = |start: usize, count: usize| (start + count).min(input.len());
        match self {
            Self::Flip(at, bit) => {
                if let Some(byte) = input.get_mut(at % length) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Set(at, value) => {
                if let Some(byte) = input.get_mut(at % length) {
                    *byte = *value;
                }
            }
            Self::Insert(at, bytes) => {
                let at = (at % length).min(input.len());
                input.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = (at % length).min(input.len());
                let end = end(at, *count);
                input.drain(at..end);
            }
            Self::Repeat(at, count) => {
                let at = (at % length).min(input.len());
                let piece = input[at..end(at, *count)].to_vec();
                input.splice(at..at, piece);
            }
            Self::Truncate(at) => input.truncate(at % length),
            Self::Splice(at, from) => {
                input.truncate(at % length);
                input.extend(&other[(from % other.len().max(1)).min(other.len())..]);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = || 0_usize..4096;
    prop_oneof![
        4 => (at(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        4 => (at(), any::<u8>()).prop_map(|(at, value)| Mutation::Set(at, value)),
        2 => (at(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), 1_usize..9).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => (at(), 1_usize..40).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        1 => at().prop_map(Mutation::Truncate),
        2 => (at(), at()).prop_map(|(at, from)| Mutation::Splice(at, from)),
    ]
}

fn seed() -> impl Strategy<Value = Vec<u8>> {
    let seeds: Vec<_> = corpus::entries().into_iter().map(|entry| entry.request).collect();
    prop::sample::select(seeds)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_have_an_answer(input in vec(any::<u8>(), 0..5000)) {
        survives(&mut attestor(), &mut Machine::new(), &input);
    }

    #[test]
    fn requests_with_flaws_have_an_answer(
        mut input in seed(),
        other in seed(),
        mutations in vec(mutation(), 1..6),
    ) {
        for mutation in mutations {
            mutation.apply(&mut input, &other);
        }
        survives(&mut attestor(), &mut Machine::new(), &input);
    }
}
