//! A machine that does what a test tells it, and an enclave on it.

use nsm::{
    Answer, AttestationContent, Attestor, MeasuredImage, ModuleId, ParentIdentity, Pcr, PcrBank, Platform,
    PlatformError, Refusal, Reply,
};

pub(crate) const MODULE_ID: &str = "i-0a22e5c5f24d22174-enc0191cceb42891234";
pub(crate) const INSTANCE_ID: &str = "i-0a22e5c5f24d22174";
pub(crate) const ROLE: &str = "arn:aws:iam::123456789012:role/Test";
pub(crate) const NOW_MS: u64 = 1_725_719_855_000;

/// What was stated in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) module_id: String,
    pub(crate) timestamp_ms: u64,
    pub(crate) pcrs: Vec<(u16, Pcr)>,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) user_data: Option<Vec<u8>>,
    pub(crate) nonce: Option<Vec<u8>>,
}

/// Its random bytes count up from 0; its documents are zeros.
pub(crate) struct Machine {
    pub(crate) works: bool,
    pub(crate) document_length: usize,
    pub(crate) issued: Vec<Issued>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            works: true,
            document_length: 5,
            issued: Vec::new(),
        }
    }
}

impl Platform for Machine {
    fn now_ms(&mut self) -> u64 {
        NOW_MS
    }

    fn fill_random(&mut self, bytes: &mut [u8]) -> Result<(), PlatformError> {
        for (byte, value) in bytes.iter_mut().zip((0..=255).cycle()) {
            *byte = value;
        }
        self.works.then_some(()).ok_or_else(|| "no entropy".into())
    }

    fn issue_document(&mut self, content: &AttestationContent<'_>) -> Result<Vec<u8>, PlatformError> {
        self.issued.push(Issued {
            module_id: content.module_id.to_string(),
            timestamp_ms: content.timestamp_ms,
            pcrs: content.pcrs.clone(),
            public_key: content.public_key.map(Into::into),
            user_data: content.user_data.map(Into::into),
            nonce: content.nonce.map(Into::into),
        });
        if self.works {
            Ok(vec![0; self.document_length])
        } else {
            Err("no key".into())
        }
    }
}

/// A register that shows which one it is.
pub(crate) fn pcr(byte: u8) -> Pcr {
    Pcr([byte; 48])
}

pub(crate) fn image() -> MeasuredImage {
    MeasuredImage {
        pcr0: pcr(0xa0),
        pcr1: pcr(0xa1),
        pcr2: pcr(0xa2),
        pcr8: Some(pcr(0xa8)),
    }
}

pub(crate) fn bank() -> PcrBank {
    let parent = ParentIdentity::new(Some(ROLE), INSTANCE_ID).unwrap();
    PcrBank::at_boot(&image(), &parent, false)
}

pub(crate) fn attestor() -> Attestor {
    Attestor::new(ModuleId::new(MODULE_ID).unwrap(), bank())
}

/// The reply to a request; changes are made.
pub(crate) fn reply(attestor: &mut Attestor, request: &[u8], machine: &mut Machine) -> Reply {
    match attestor.answer(request, machine) {
        Answer::Reply(reply) => reply,
        Answer::Change(change) => change.commit(),
    }
}

/// The bytes of the reply of a machine in working order, and why it refused if it did.
pub(crate) fn answered(attestor: &mut Attestor, request: &[u8]) -> (Vec<u8>, Option<Refusal>) {
    let Reply { bytes, refusal } = reply(attestor, request, &mut Machine::new());
    (bytes, refusal)
}
