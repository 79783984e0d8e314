//! Enclave ids: `<instance id>-enc<slot in hexadecimal>`, as AWS's.
//!
//! The slot is a 64-bit number: milliseconds since 1970 in the upper 48 bits, 16 random bits below. Public ids of real
//! enclaves decode so. It is printed in lower case and without leading zeros.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Where EC2 publishes the instance id.
pub const BOARD_ASSET_TAG: &str = "/sys/devices/virtual/dmi/id/board_asset_tag";

/// The instance id of a machine that has none; AWS's nitro-cli falls back to the same text.
const NO_INSTANCE: &str = "i-0000000000000000";

/// The longest text that is taken for an instance id: `i-` and 17 digits on EC2.
const MAX_INSTANCE_ID: usize = 32;

/// The instance id that prefixes every enclave id of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceId(String);

impl InstanceId {
    /// What `tag_file` (usually [`BOARD_ASSET_TAG`]) holds, if that looks like an instance id, else sixteen zeros.
    pub fn read(tag_file: &Path) -> Self {
        let tag = std::fs::read_to_string(tag_file).unwrap_or_default();
        Self::parse(tag.trim()).unwrap_or_else(|| Self(NO_INSTANCE.to_owned()))
    }

    fn parse(tag: &str) -> Option<Self> {
        let digits = tag.strip_prefix("i-")?;
        let plausible = !digits.is_empty()
            && tag.len() <= MAX_INSTANCE_ID
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        plausible.then(|| Self(tag.to_owned()))
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnclaveId {
    instance: InstanceId,
    slot: u64,
}

impl EnclaveId {
    /// The most bytes an id takes as text.
    pub const MAX_LEN: usize = MAX_INSTANCE_ID + "-enc".len() + 16;

    /// An id for an enclave created now.
    pub fn generate(instance: &InstanceId) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let mut random = [0; 2];
        // Without randomness (a kernel older than any that can run this) ids stay unique: the registry steps on.
        let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
        Self {
            instance: instance.clone(),
            slot: (milliseconds << 16) | u64::from(u16::from_ne_bytes(random)),
        }
    }

    /// The next id, for the case that this one is taken.
    #[must_use]
    pub fn following(&self) -> Self {
        Self {
            instance: self.instance.clone(),
            slot: self.slot.wrapping_add(1),
        }
    }

    /// The instance's id.
    pub fn instance(&self) -> &str {
        &self.instance.0
    }

    /// The slot's number.
    pub fn slot(&self) -> u64 {
        self.slot
    }

    /// Whether `text` is exactly what some id looks like.
    pub fn is_one(text: &str) -> bool {
        text.parse::<Self>().is_ok()
    }

    /// Whether a user who typed `text` means this enclave: only what follows the last `-enc` counts, so a bare slot
    /// works too.
    pub fn is_meant_by(&self, text: &str) -> bool {
        let slot = text.rsplit_once("-enc").map_or(text, |(_, slot)| slot);
        slot == format!("{:x}", self.slot)
    }
}

/// A text that is no enclave id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no enclave id")]
pub struct NoEnclaveId;

impl FromStr for EnclaveId {
    type Err = NoEnclaveId;

    /// Accepts exactly what [`fmt::Display`] prints.
    fn from_str(text: &str) -> Result<Self, NoEnclaveId> {
        let (instance, slot) = text.rsplit_once("-enc").ok_or(NoEnclaveId)?;
        let id = Self {
            instance: InstanceId::parse(instance).ok_or(NoEnclaveId)?,
            slot: u64::from_str_radix(slot, 16).map_err(|_| NoEnclaveId)?,
        };
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(NoEnclaveId)
        }
    }
}

impl TryFrom<String> for EnclaveId {
    type Error = NoEnclaveId;

    fn try_from(text: String) -> Result<Self, NoEnclaveId> {
        text.parse()
    }
}

impl From<EnclaveId> for String {
    fn from(id: EnclaveId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for EnclaveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-enc{:x}", self.instance.0, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(slot: u64) -> EnclaveId {
        EnclaveId {
            instance: InstanceId("i-0123456789abcdef0".into()),
            slot,
        }
    }

    #[test]
    fn the_slot_is_hexadecimal_without_padding() {
        assert_eq!(
            id(0x018f_25ed_a1b8_97b7).to_string(),
            "i-0123456789abcdef0-enc18f25eda1b897b7"
        );
    }

    #[test]
    fn only_the_part_after_the_last_enc_counts() {
        let id = id(0x18f2);

        for text in [
            "i-0123456789abcdef0-enc18f2",
            "elsewhere-enc18f2",
            "a-enc1-enc18f2",
            "18f2",
        ] {
            assert!(id.is_meant_by(text), "{text}");
        }
        for text in [
            "",
            "018f2",
            "i-0123456789abcdef0-enc18f3",
            "18f2-enc",
            "18F2",
            "enc18f2",
        ] {
            assert!(!id.is_meant_by(text), "{text}");
        }
    }

    #[test]
    fn what_merely_resembles_an_id_is_none() {
        assert!(EnclaveId::is_one("i-0000000000000000-enc0"));
        for text in [
            "",
            "-enc1",
            "backup-encrypted",
            "i-0-enc",
            "i-0-enc01",
            "i-0-encF",
            "i-0-enc+1",
            "i-0-enc1-enc1",
            "i-0-enc1 ",
            "i-0-enc12345678123456789",
        ] {
            assert!(!EnclaveId::is_one(text), "{text}");
        }
    }

    #[test]
    fn an_instance_id_is_taken_from_the_board_and_anything_else_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let tag = directory.path().join("board_asset_tag");

        assert_eq!(InstanceId::read(&tag).0, NO_INSTANCE);
        for (content, expected) in [
            ("i-0123456789abcdef0\n", "i-0123456789abcdef0"),
            ("Default string\n", NO_INSTANCE),
            ("i-\n", NO_INSTANCE),
            ("i-../../etc\n", NO_INSTANCE),
            ("", NO_INSTANCE),
        ] {
            std::fs::write(&tag, content).unwrap();
            assert_eq!(InstanceId::read(&tag).0, expected, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn every_id_means_itself_and_fits_its_limit(slot: u64) {
            let id = id(slot);
            prop_assert!(id.is_meant_by(&id.to_string()));
            prop_assert_eq!(id.to_string().parse(), Ok(id.clone()));
            prop_assert!(!id.following().is_meant_by(&id.to_string()));
            prop_assert!(id.to_string().len() <= EnclaveId::MAX_LEN);
        }
    }
}
