//! The 32 platform configuration registers of an enclave and their rules.
//!
//! - A register only changes by being extended: `new = H(old ‖ data)`.
//! - A locked register does not change any more, and nothing unlocks it while the enclave lives.
//! - 0 to 15 belong to the platform: they are locked before the guest runs. 16 to 31 start at zero and are the
//!   application's.

use std::fmt;

use crate::{ErrorCode, Pcr};

/// Registers in a bank.
pub const PCR_COUNT: u16 = 32;

/// Registers that are locked before the guest runs: 0 to 15.
pub const PLATFORM_PCRS: u16 = 16;

/// A register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) value: Pcr,
    pub(crate) locked: bool,
}

/// All registers of an enclave.
#[derive(Clone, PartialEq, Eq)]
pub struct PcrBank {
    pub(crate) registers: [Register; PCR_COUNT as usize],
}

/// Why a register was left as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PcrError {
    /// There is no such register, or there are not as many.
    #[error("PCR index or range {found} is out of range; there are {PCR_COUNT} PCRs")]
    OutOfRange {
        /// What was asked for.
        found: u16,
    },
    /// It is locked.
    #[error("PCR{index} is locked")]
    Locked {
        /// Which one.
        index: u16,
    },
}

impl PcrError {
    /// What the guest is told.
    pub const fn code(self) -> ErrorCode {
        match self {
            Self::OutOfRange { .. } => ErrorCode::InvalidIndex,
            Self::Locked { .. } => ErrorCode::ReadOnlyIndex,
        }
    }
}

impl PcrBank {
    /// A bank whose platform registers have the values that `platform` gives for their indices.
    pub(crate) fn with_platform_values(platform: impl Fn(u16) -> Pcr) -> Self {
        let mut index = 0..;
        let registers = [(); PCR_COUNT as usize].map(|()| {
            let index = index.next().unwrap_or(PCR_COUNT);
            let locked = index < PLATFORM_PCRS;
            let value = if locked { platform(index) } else { Pcr::ZERO };
            Register { value, locked }
        });
        Self { registers }
    }

    /// The value of register `index`.
    ///
    /// # Errors
    /// [`PcrError::OutOfRange`].
    pub fn value(&self, index: u16) -> Result<Pcr, PcrError> {
        self.register(index).map(|register| register.value)
    }

    /// Whether register `index` is locked.
    ///
    /// # Errors
    /// [`PcrError::OutOfRange`].
    pub fn is_locked(&self, index: u16) -> Result<bool, PcrError> {
        self.register(index).map(|register| register.locked)
    }

    /// Extends register `index` with `data` and returns its new value.
    ///
    /// # Errors
    /// [`PcrError`], and nothing has changed.
    pub fn extend(&mut self, index: u16, data: &[u8]) -> Result<Pcr, PcrError> {
        let register = self.unlocked(index)?;
        register.value = register.value.extended(data);
        Ok(register.value)
    }

    /// Locks register `index`.
    ///
    /// # Errors
    /// [`PcrError`], also if it is locked already.
    pub fn lock(&mut self, index: u16) -> Result<(), PcrError> {
        self.unlocked(index)?.locked = true;
        Ok(())
    }

    /// Locks registers 0 to `range - 1`. Those that are locked stay so.
    ///
    /// # Errors
    /// [`PcrError::OutOfRange`] above [`PCR_COUNT`], and nothing has changed.
    pub fn lock_range(&mut self, range: u16) -> Result<(), PcrError> {
        let registers = self
            .registers
            .get_mut(..usize::from(range))
            .ok_or(PcrError::OutOfRange { found: range })?;
        for register in registers {
            register.locked = true;
        }
        Ok(())
    }

    /// Indices and values of the locked registers, by index.
    pub fn locked(&self) -> impl Iterator<Item = (u16, Pcr)> {
        self.iter()
            .filter(|(_, register)| register.locked)
            .map(|(index, register)| (index, register.value))
    }

    /// All registers by index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Register)> {
        (0..).zip(&self.registers)
    }

    fn register(&self, index: u16) -> Result<&Register, PcrError> {
        self.registers
            .get(usize::from(index))
            .ok_or(PcrError::OutOfRange { found: index })
    }

    /// A register that may change.
    fn unlocked(&mut self, index: u16) -> Result<&mut Register, PcrError> {
        let register = self
            .registers
            .get_mut(usize::from(index))
            .ok_or(PcrError::OutOfRange { found: index })?;
        if register.locked {
            return Err(PcrError::Locked { index });
        }
        Ok(register)
    }
}

impl fmt::Debug for PcrBank {
    /// Registers that are zero are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.iter().filter(|(_, register)| register.value != Pcr::ZERO);
        f.debug_map().entries(set).finish()
    }
}
