//! Documents put together item by item, so that each can be wrong.

use attestation::{Signer, SoftwareKey};

use crate::vectors::bytes;

pub(crate) const PROTECTED: &str = "44a1013822";

/// The first bytes of an item, the shortest that hold `value`.
pub(crate) fn head(major: u8, value: usize) -> Vec<u8> {
    let major = major << 5;
    match u16::try_from(value).unwrap() {
        value @ 0..24 => vec![major | u8::try_from(value).unwrap()],
        value @ 24..256 => vec![major | 0x18, u8::try_from(value).unwrap()],
        value => [&[major | 0x19], &value.to_be_bytes()[..]].concat(),
    }
}

pub(crate) fn byte_string(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len()), bytes.to_vec()].concat()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [head(3, text.len()), text.as_bytes().to_vec()].concat()
}

pub(crate) fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len()), items.concat()].concat()
}

/// The entries of a payload as their bytes.
#[derive(Clone)]
pub(crate) struct Payload {
    pub(crate) head: Vec<u8>,
    pub(crate) entries: Vec<(String, Vec<u8>)>,
    pub(crate) end: Vec<u8>,
}

impl Payload {
    /// One register, no optional field, made at `millis`.
    pub(crate) fn new(millis: u64, leaf: &[u8], cabundle: &[Vec<u8>]) -> Self {
        let certificates: Vec<_> = cabundle.iter().map(|der| byte_string(der)).collect();
        let entries = [
            ("module_id", text("i-1-enc1")),
            ("digest", text("SHA384")),
            ("timestamp", [&[0x1b], &millis.to_be_bytes()[..]].concat()),
            ("pcrs", [bytes("a100"), byte_string(&[7; 48])].concat()),
            ("certificate", byte_string(leaf)),
            ("cabundle", array(&certificates)),
            ("public_key", vec![0xf6]),
            ("user_data", vec![0xf6]),
            ("nonce", vec![0xf6]),
        ];
        Self {
            head: vec![0xa9],
            entries: entries.map(|(key, value)| (key.to_owned(), value)).into(),
            end: vec![],
        }
    }

    pub(crate) fn with(mut self, key: &str, value: Vec<u8>) -> Self {
        let entry = self.entries.iter_mut().find(|(found, _)| found == key);
        entry.unwrap().1 = value;
        self
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let entries = self
            .entries
            .iter()
            .map(|(key, value)| [text(key), value.clone()].concat());
        [
            self.head.clone(),
            entries.collect::<Vec<_>>().concat(),
            self.end.clone(),
        ]
        .concat()
    }

    pub(crate) fn signed(&self, key: &SoftwareKey) -> Vec<u8> {
        let payload = byte_string(&self.to_bytes());
        let signed = [text("Signature1"), bytes(PROTECTED), bytes("40"), payload.clone()].concat();
        let signature = key.sign(&[&[0x84], &signed[..]].concat()).unwrap();
        [
            bytes("84"),
            bytes(PROTECTED),
            bytes("a0"),
            payload,
            byte_string(&signature),
        ]
        .concat()
    }
}
