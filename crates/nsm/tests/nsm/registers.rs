//! Registers: what they hold at boot, and what becomes of them whatever a guest does.

use std::collections::BTreeSet;

use aws_nitro_enclaves_nsm_api::api::{
    ErrorCode as ApiErrorCode, Request as ApiRequest, Response as ApiResponse,
};
use nsm::{
    Answer, Attestor, MeasuredImage, ModuleId, ModuleIdError, ParentIdentity, Pcr, PcrBank, PcrError,
    Snapshot,
};
use proptest::prelude::*;
use sha2::{Digest, Sha384};

use crate::client::{attestation, decoded, encoded};
use crate::machine::{INSTANCE_ID, MODULE_ID, Machine, ROLE, attestor, bank, image, pcr};

const PCR3: &str =
    "bd1333825303268a6c7e47cf428ef78e04c71fd252ece83f9cbf2a7afdfd2cd13f72ca43a6a9ed680605640255e76510";
const PCR4: &str =
    "45706d7b621e4620a332e147a5ddb000b049f73d47d3e61f6b03d2069152d4df6a4a786ad1c10102b955799a9dc96b44";

/// The values of all registers.
fn values(bank: &PcrBank) -> Vec<Pcr> {
    (0..32).map(|index| bank.value(index).unwrap()).collect()
}

fn at_boot(image: &MeasuredImage, role: Option<&str>, debug_mode: bool) -> Vec<Pcr> {
    let parent = ParentIdentity::new(role, INSTANCE_ID).unwrap();
    values(&PcrBank::at_boot(image, &parent, debug_mode))
}

fn expected(set: &[(usize, Pcr)]) -> Vec<Pcr> {
    let mut values = vec![Pcr::ZERO; 32];
    for (index, value) in set {
        values[*index] = *value;
    }
    values
}

#[test]
fn the_platform_fills_six_registers() {
    let pcr3 = Pcr::from_hex(PCR3).unwrap();
    let pcr4 = Pcr::from_hex(PCR4).unwrap();
    let (pcr0, pcr1, pcr2, pcr8) = (pcr(0xa0), pcr(0xa1), pcr(0xa2), pcr(0xa8));
    assert_eq!(
        at_boot(&image(), Some(ROLE), false),
        expected(&[(0, pcr0), (1, pcr1), (2, pcr2), (3, pcr3), (4, pcr4), (8, pcr8)])
    );
    let unsigned = MeasuredImage {
        pcr8: None,
        ..image()
    };
    assert_eq!(
        at_boot(&unsigned, None, false),
        expected(&[(0, pcr0), (1, pcr1), (2, pcr2), (4, pcr4)])
    );
}

#[test]
fn in_debug_mode_an_image_proves_nothing_and_the_parent_is_known() {
    let pcr3 = Pcr::from_hex(PCR3).unwrap();
    let pcr4 = Pcr::from_hex(PCR4).unwrap();
    assert_eq!(
        at_boot(&image(), Some(ROLE), true),
        expected(&[(3, pcr3), (4, pcr4)])
    );
    assert_eq!(at_boot(&image(), None, true), expected(&[(4, pcr4)]));
}

#[test]
fn pcr4_of_other_instances_is_known() {
    for (instance, known) in [
        (
            "i-0368fa67e156d6d23",
            "245617239e18ae8eb5150c2be45200db1e6b1e483d94c81d8386171eaad6cf641a1c90f1571f185426c82f77783feb37",
        ),
        (
            "i-026ae32a18c80f866",
            "6e32db11ec7af5927b05c4d9059edfae96f45f50f8b54f59f19f0a093db9085049b01a9759cacbc5922db5aaba0be067",
        ),
    ] {
        let parent = ParentIdentity::new(None, instance).unwrap();
        let bank = PcrBank::at_boot(&image(), &parent, false);
        assert_eq!(bank.value(4).unwrap().to_string(), known, "{instance}");
    }
}

#[test]
fn texts_that_nobody_could_tell_from_a_register_are_refused() {
    for wrong in ["", " ", "i-1\n", "i 1", "i-é", "\0"] {
        let error = ParentIdentity::new(None, wrong).unwrap_err();
        assert!(error.to_string().starts_with("the instance id"), "{wrong:?}");
        let error = ParentIdentity::new(Some(wrong), INSTANCE_ID).unwrap_err();
        assert!(error.to_string().starts_with("the role ARN"), "{wrong:?}");
        assert_eq!(ModuleId::new(wrong), Err(ModuleIdError), "{wrong:?}");
    }
    assert_eq!(ModuleId::new("x".repeat(100)).unwrap().as_str().len(), 100);
    assert_eq!(ModuleId::new("x".repeat(101)), Err(ModuleIdError));
}

#[test]
fn the_bank_itself_keeps_to_the_rules() {
    let mut bank = bank();
    assert_eq!(bank.extend(15, b""), Err(PcrError::Locked { index: 15 }));
    assert_eq!(bank.lock(32), Err(PcrError::OutOfRange { found: 32 }));
    assert_eq!(bank.is_locked(32), Err(PcrError::OutOfRange { found: 32 }));
    assert_eq!(bank.lock_range(33), Err(PcrError::OutOfRange { found: 33 }));
    assert_eq!(bank, crate::machine::bank());
    bank.extend(16, b"abc").unwrap();
    bank.lock(16).unwrap();
    assert_eq!(bank.is_locked(16), Ok(true));
    // head -c 48 /dev/zero | cat - <(printf abc) | sha384sum
    assert_eq!(
        bank.value(16).unwrap().to_string(),
        "b1c16eb7634112b7c9d5ebd27e62a2d4528bbfcfd68b62d3afd9ecf98e0f413a84314acce78317fb69fd895155343e09"
    );
}

/// What a guest does.
#[derive(Clone, Debug)]
enum Step {
    Request(ApiStep),
    /// The same, but the daemon cannot write the change down.
    Unwritten(ApiStep),
    /// Another daemon takes over, with what was written down.
    Restart,
}

#[derive(Clone, Debug)]
enum ApiStep {
    Describe(u16),
    Extend(u16, Vec<u8>),
    Lock(u16),
    LockRange(u16),
    DescribeAll,
    Attest,
}

impl ApiStep {
    fn request(&self) -> ApiRequest {
        match self.clone() {
            Self::Describe(index) => ApiRequest::DescribePCR { index },
            Self::Extend(index, data) => ApiRequest::ExtendPCR { index, data },
            Self::Lock(index) => ApiRequest::LockPCR { index },
            Self::LockRange(range) => ApiRequest::LockPCRs { range },
            Self::DescribeAll => ApiRequest::DescribeNSM,
            Self::Attest => attestation(None, Some(b"n"), None),
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    // Often the first registers that a guest may change, and the edges.
    let index = || prop_oneof![4 => 16_u16..20, 2 => 13_u16..34, 1 => any::<u16>()];
    let range = prop_oneof![6 => 0_u16..18, 1 => 18_u16..40, 1 => any::<u16>()];
    let request = prop_oneof![
        3 => index().prop_map(ApiStep::Describe),
        6 => (index(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(i, d)| ApiStep::Extend(i, d)),
        1 => index().prop_map(ApiStep::Lock),
        1 => range.prop_map(ApiStep::LockRange),
        1 => Just(ApiStep::DescribeAll),
        1 => Just(ApiStep::Attest),
    ];
    prop_oneof![
        8 => request.clone().prop_map(Step::Request),
        1 => request.prop_map(Step::Unwritten),
        1 => Just(Step::Restart),
    ]
}

/// The rules as they are told: a history of what each register was extended with, and a set of locks.
struct Model {
    initial: Vec<Pcr>,
    history: Vec<Vec<Vec<u8>>>,
    locked: BTreeSet<u16>,
}

/// What a client sees of a response.
#[derive(Debug, PartialEq)]
enum Seen {
    Register(bool, Vec<u8>),
    Extended(Vec<u8>),
    Locked,
    RangeLocked,
    Locks(BTreeSet<u16>),
    Document(Vec<(u16, Pcr)>),
    InvalidIndex,
    ReadOnlyIndex,
    InternalError,
}

impl Model {
    fn new() -> Self {
        Self {
            initial: values(&bank()),
            history: vec![Vec::new(); 32],
            locked: (0..16).collect(),
        }
    }

    fn value(&self, index: u16) -> Vec<u8> {
        let index = usize::from(index);
        let initial = self.initial[index].0.to_vec();
        self.history[index].iter().fold(initial, |value, data| {
            Sha384::digest([value, data.clone()].concat()).to_vec()
        })
    }

    /// Why register `index` cannot be changed.
    fn obstacle(&self, index: u16) -> Option<Seen> {
        match index {
            32.. => Some(Seen::InvalidIndex),
            _ if self.locked.contains(&index) => Some(Seen::ReadOnlyIndex),
            _ => None,
        }
    }

    /// What a step must look like, after it if `written`, and without it otherwise.
    fn step(&mut self, step: &ApiStep, written: bool) -> Seen {
        match step {
            ApiStep::Describe(32..) | ApiStep::LockRange(33..) => Seen::InvalidIndex,
            ApiStep::Describe(index) => Seen::Register(self.locked.contains(index), self.value(*index)),
            ApiStep::Extend(index, data) => self.obstacle(*index).unwrap_or_else(|| {
                if !written {
                    return Seen::InternalError;
                }
                self.history[usize::from(*index)].push(data.clone());
                Seen::Extended(self.value(*index))
            }),
            ApiStep::Lock(index) => self.obstacle(*index).unwrap_or_else(|| {
                if !written {
                    return Seen::InternalError;
                }
                self.locked.insert(*index);
                Seen::Locked
            }),
            ApiStep::LockRange(range) => {
                let new: Vec<u16> = (0..*range).filter(|index| !self.locked.contains(index)).collect();
                if !written && !new.is_empty() {
                    return Seen::InternalError;
                }
                self.locked.extend(new);
                Seen::RangeLocked
            }
            ApiStep::DescribeAll => Seen::Locks(self.locked.clone()),
            ApiStep::Attest => {
                let value = |index| Pcr(self.value(index).try_into().unwrap());
                Seen::Document(self.locked.iter().map(|index| (*index, value(*index))).collect())
            }
        }
    }
}

fn seen(response: ApiResponse, machine: &mut Machine) -> Seen {
    match response {
        ApiResponse::DescribePCR { lock, data } => Seen::Register(lock, data),
        ApiResponse::ExtendPCR { data } => Seen::Extended(data),
        ApiResponse::LockPCR => Seen::Locked,
        ApiResponse::LockPCRs => Seen::RangeLocked,
        ApiResponse::DescribeNSM { locked_pcrs, .. } => Seen::Locks(locked_pcrs),
        ApiResponse::Attestation { .. } => Seen::Document(machine.issued.pop().unwrap().pcrs),
        ApiResponse::Error(ApiErrorCode::InvalidIndex) => Seen::InvalidIndex,
        ApiResponse::Error(ApiErrorCode::ReadOnlyIndex) => Seen::ReadOnlyIndex,
        ApiResponse::Error(ApiErrorCode::InternalError) => Seen::InternalError,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// From bytes to bytes, over restarts and failing disks.
    #[test]
    fn whatever_a_guest_does_the_registers_are_those_of_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut model = Model::new();
        let mut attestor = attestor();
        let mut machine = Machine::new();
        let mut disk = serde_json::to_string(&Snapshot::from(attestor.bank())).unwrap();
        for step in steps {
            let (step, written) = match step {
                Step::Request(step) => (step, true),
                Step::Unwritten(step) => (step, false),
                Step::Restart => {
                    let snapshot: Snapshot = serde_json::from_str(&disk).unwrap();
                    let bank = PcrBank::try_from(&snapshot).unwrap();
                    attestor = Attestor::new(ModuleId::new(MODULE_ID).unwrap(), bank);
                    continue;
                }
            };
            let reply = match attestor.answer(&encoded(&step.request()), &mut machine) {
                Answer::Reply(reply) => reply,
                Answer::Change(change) if written => {
                    disk = serde_json::to_string(&change.snapshot()).unwrap();
                    change.commit()
                }
                Answer::Change(change) => change.abandon(),
            };
            prop_assert_eq!(seen(decoded(&reply.bytes), &mut machine), model.step(&step, written), "{:?}", step);
        }
    }
}
