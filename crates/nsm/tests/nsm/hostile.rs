//! Bytes that are nearly requests, or not at all. The guest and its VMM may send anything.
//!
//! `inputs_without_end` is for long runs:
//!
//! ```console
//! $ NSM_FUZZ_INPUTS=10000000 cargo test --release -p nsm --test nsm -- --ignored inputs_without_end
//! ```

use aws_nitro_enclaves_nsm_api::api::Response as ApiResponse;
use nsm::{Answer, Attestor, MAX_RESPONSE, Request};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::client::{decoded, ours, understood};
use crate::corpus;
use crate::machine::{Machine, attestor, bank};

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

/// splitmix64: numbers that are the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        // Bytes that mean something in CBOR come more often.
        const HEADS: [u8; 16] = [
            0x00, 0x17, 0x18, 0x1b, 0x20, 0x40, 0x5b, 0x5f, 0x60, 0x7f, 0x80, 0x9f, 0xa1, 0xbf, 0xf6, 0xff,
        ];
        let [byte, choice, ..] = self.next().to_be_bytes();
        if choice.is_multiple_of(2) {
            byte
        } else {
            HEADS[usize::from(byte % 16)]
        }
    }

    fn mutation(&mut self, length: usize) -> Mutation {
        let at = self.below(length + 1);
        match self.below(10) {
            0..=1 => Mutation::Flip(at, self.byte()),
            2..=4 => Mutation::Set(at, self.byte()),
            5 => Mutation::Insert(at, (0..=self.below(8)).map(|_| self.byte()).collect()),
            6 => Mutation::Remove(at, 1 + self.below(8)),
            7 => Mutation::Repeat(at, 1 + self.below(60)),
            8 => Mutation::Truncate(at),
            _ => Mutation::Splice(at, self.below(4096)),
        }
    }
}

/// Tells which input it was if a check fails.
struct Shown<'a>(u64, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprint!("input {}: ", self.0);
            self.1.iter().for_each(|byte| eprint!("{byte:02x}"));
            eprintln!();
        }
    }
}

/// Mutates the corpus, and what came of it that was accepted, as often as `NSM_FUZZ_INPUTS` says, or a million times. Runs
/// with the same `NSM_FUZZ_SEED` are alike.
#[test]
#[ignore = "takes as long as it is told to"]
fn inputs_without_end() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let inputs = number("NSM_FUZZ_INPUTS", 1_000_000);
    let mut numbers = Numbers(number("NSM_FUZZ_SEED", 1));
    let mut pool: Vec<Vec<u8>> = corpus::entries().into_iter().map(|entry| entry.request).collect();
    let seeds = pool.len();
    let mut attestor = attestor();
    let mut machine = Machine::new();
    let mut accepted = 0_u64;
    for count in 0..inputs {
        let mut input = pool[numbers.below(pool.len())].clone();
        let other = &pool[numbers.below(pool.len())];
        for _ in 0..=numbers.below(4) {
            numbers.mutation(input.len()).apply(&mut input, other);
        }
        let shown = Shown(count, &input);
        survives(&mut attestor, &mut machine, &input);
        drop(shown);
        if Request::decode(&input).is_ok() {
            accepted += 1;
            if pool.len() < 4096 {
                pool.push(input);
            } else {
                let replaced = seeds + numbers.below(pool.len() - seeds);
                pool[replaced] = input;
            }
        }
        // Locks last, and after a while nothing would change any more.
        if count % 256 == 0 {
            attestor = crate::machine::attestor();
            assert_eq!(attestor.bank(), &bank());
        }
    }
    eprintln!("{inputs} inputs, {accepted} of them requests");
    assert!(
        inputs < 1000 || accepted > inputs / 1000,
        "hardly any input is a request: {accepted}"
    );
}
