//! A PCR bank in the form in which it is written down, so that it survives the daemon.
//!
//! What is read back is not believed: a bank only comes out of a snapshot that some enclave's bank could have become.

use serde::{Deserialize, Serialize};

use crate::Pcr;
use crate::boot::UNUSED_PLATFORM_PCRS;
use crate::pcr_bank::{PCR_COUNT, PLATFORM_PCRS, PcrBank, Register};

/// All registers of a bank. Serialised, a value is 96 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The value of each register, by index.
    values: Vec<Pcr>,
    /// Which registers are locked, ascending.
    locked: Vec<u16>,
}

/// Why a snapshot is not one of an enclave's bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Too few or too many registers.
    #[error("{found} PCRs were written down; there are {PCR_COUNT}")]
    Count {
        /// How many.
        found: usize,
    },
    /// Locks of registers that do not exist, or not in ascending order.
    #[error("the locked PCRs that were written down are not in order, or not all PCRs: {index}")]
    Locks {
        /// The first that is out of order or out of range.
        index: u16,
    },
    /// A register of the platform is not locked.
    #[error("PCR{index} belongs to the platform, but was written down as not locked")]
    Unlocked {
        /// Which one.
        index: u16,
    },
    /// A register has a value that no enclave can give it.
    #[error("PCR{index} was written down with a value, but is always zero")]
    NotZero {
        /// Which one.
        index: u16,
    },
}

impl From<&PcrBank> for Snapshot {
    fn from(bank: &PcrBank) -> Self {
        Self {
            values: bank.iter().map(|(_, register)| register.value).collect(),
            locked: bank.locked().map(|(index, _)| index).collect(),
        }
    }
}

impl TryFrom<&Snapshot> for PcrBank {
    type Error = SnapshotError;

    fn try_from(snapshot: &Snapshot) -> Result<Self, SnapshotError> {
        let values: [Pcr; PCR_COUNT as usize] =
            snapshot
                .values
                .as_slice()
                .try_into()
                .map_err(|_| SnapshotError::Count {
                    found: snapshot.values.len(),
                })?;
        snapshot.check_locks()?;
        let mut registers = values.map(|value| Register { value, locked: false });
        for index in &snapshot.locked {
            if let Some(register) = registers.get_mut(usize::from(*index)) {
                register.locked = true;
            }
        }
        let bank = Self { registers };
        check_platform(&bank)?;
        Ok(bank)
    }
}

impl Snapshot {
    fn check_locks(&self) -> Result<(), SnapshotError> {
        let mut lowest = 0;
        for &index in &self.locked {
            if !(lowest..PCR_COUNT).contains(&index) {
                return Err(SnapshotError::Locks { index });
            }
            lowest = index + 1;
        }
        Ok(())
    }
}

fn check_platform(bank: &PcrBank) -> Result<(), SnapshotError> {
    for (index, register) in bank.iter().take(usize::from(PLATFORM_PCRS)) {
        if !register.locked {
            return Err(SnapshotError::Unlocked { index });
        }
        if UNUSED_PLATFORM_PCRS.contains(&index) && register.value != Pcr::ZERO {
            return Err(SnapshotError::NotZero { index });
        }
    }
    Ok(())
}
