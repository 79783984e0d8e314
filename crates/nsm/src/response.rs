//! Responses: what a guest is told, to bytes.
//!
//! ```text
//! {"DescribePCR": {"lock": bool, "data": bytes(48)}}
//! {"ExtendPCR":   {"data": bytes(48)}}
//! "LockPCR"
//! "LockPCRs"
//! {"DescribeNSM": {"version_major": 1, "version_minor": 0, "version_patch": 0, "module_id": text,
//!                  "max_pcrs": 32, "locked_pcrs": [u16, ...], "digest": "SHA384"}}
//! {"GetRandom":   {"random": bytes}}
//! {"Attestation": {"document": bytes}}
//! {"Error":       text}
//! ```
//!
//! The bytes are those that AWS's `Response` has under serde_cbor: keys in this order, definite lengths, shortest integers.
//! Linux depends on it: its random number generator takes what follows `a1 69 "GetRandom" a1 66 "random"` without parsing.

use crate::pcr_bank::PCR_COUNT;
use crate::writer::Writer;
use crate::{ErrorCode, ModuleId, Pcr};

/// The most bytes that a response may have: what Linux has room for.
pub const MAX_RESPONSE: usize = 0x3000;

/// Random bytes in a response. Linux misreads fewer than 24.
pub const RANDOM_LEN: usize = 256;

/// Version of the module: major, minor, patch.
const VERSION: [(&str, u64); 3] = [("version_major", 1), ("version_minor", 0), ("version_patch", 0)];

/// Name of the hash of all registers.
pub const DIGEST: &str = "SHA384";

/// What a guest is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    /// A register.
    DescribePcr {
        /// Whether it is locked.
        locked: bool,
        /// What it holds.
        value: Pcr,
    },
    /// A register was extended.
    ExtendPcr {
        /// What it holds now.
        value: Pcr,
    },
    /// A register was locked.
    LockPcr,
    /// Registers were locked.
    LockPcrs,
    /// The module.
    DescribeNsm {
        /// Its name.
        module_id: &'a ModuleId,
        /// Indices of locked registers, ascending.
        locked_pcrs: &'a [u16],
    },
    /// Random bytes.
    GetRandom {
        /// The bytes.
        random: &'a [u8; RANDOM_LEN],
    },
    /// A signed document.
    Attestation {
        /// `COSE_Sign1`, untagged.
        document: &'a [u8],
    },
    /// The request was not fulfilled.
    Error(ErrorCode),
}

impl Response<'_> {
    /// The bytes. No more than [`MAX_RESPONSE`], unless a document is too long for that.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        match *self {
            Self::DescribePcr { locked, value } => {
                let fields = writer.map(1).text("DescribePCR").map(2);
                fields.text("lock").boolean(locked).text("data").bytes(&value.0);
            }
            Self::ExtendPcr { value } => {
                let fields = writer.map(1).text("ExtendPCR").map(1);
                fields.text("data").bytes(&value.0);
            }
            Self::LockPcr => {
                writer.text("LockPCR");
            }
            Self::LockPcrs => {
                writer.text("LockPCRs");
            }
            Self::DescribeNsm {
                module_id,
                locked_pcrs,
            } => describe_nsm(&mut writer, module_id, locked_pcrs),
            Self::GetRandom { random } => {
                let fields = writer.map(1).text("GetRandom").map(1);
                fields.text("random").bytes(random);
            }
            Self::Attestation { document } => {
                let fields = writer.map(1).text("Attestation").map(1);
                fields.text("document").bytes(document);
            }
            Self::Error(code) => {
                writer.map(1).text("Error").text(code.text());
            }
        }
        writer.into_bytes()
    }
}

fn describe_nsm(writer: &mut Writer, module_id: &ModuleId, locked_pcrs: &[u16]) {
    writer.map(1).text("DescribeNSM").map(7);
    for (name, number) in VERSION {
        writer.text(name).unsigned(number);
    }
    writer.text("module_id").text(module_id.as_str());
    writer.text("max_pcrs").unsigned(PCR_COUNT.into());
    writer.text("locked_pcrs").array(locked_pcrs.len());
    for index in locked_pcrs {
        writer.unsigned((*index).into());
    }
    writer.text("digest").text(DIGEST);
}
