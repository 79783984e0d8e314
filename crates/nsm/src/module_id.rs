//! The name of an enclave's module.

use std::fmt;

/// The most bytes that a name may have: what AWS's C library has room for.
pub const MAX_MODULE_ID: usize = 100;

/// The name of an enclave's module, in its documents and certificate. AWS's form, which is not enforced here, is
/// `i-<17 hexadecimal digits>-enc<16 hexadecimal digits>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleId(String);

/// A text does not do as the name of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a module id is 1 to {MAX_MODULE_ID} characters of ASCII without spaces")]
pub struct ModuleIdError;

impl ModuleId {
    /// # Errors
    /// [`ModuleIdError`] for a text that is empty, too long, or has characters other than printable ASCII.
    pub fn new(text: impl Into<String>) -> Result<Self, ModuleIdError> {
        let text = text.into();
        let fits = (1..=MAX_MODULE_ID).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ModuleIdError);
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
