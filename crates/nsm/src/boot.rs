//! What the registers of the platform hold when an enclave starts.
//!
//! | PCR | value |
//! |---|---|
//! | 0, 1, 2 | the image as it was measured |
//! | 3 | `H(0⁴⁸ ‖ role ARN)`: the text itself, not a digest of it; zero without a role |
//! | 4 | `H(0⁴⁸ ‖ instance id)`, likewise |
//! | 8 | the certificate that signed the image, as it was measured; zero without a signature |
//! | others | zero |
//!
//! In debug mode, where the parent can read along and interfere, an image proves nothing: 0, 1, 2 and 8 are zero. A verifier
//! that refuses zeros refuses debug enclaves.

use crate::{Pcr, PcrBank};

/// Platform registers that are zero in every enclave.
pub(crate) const UNUSED_PLATFORM_PCRS: [u16; 10] = [5, 6, 7, 9, 10, 11, 12, 13, 14, 15];

/// The registers of an image, as its loader measured them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredImage {
    /// Kernel, command line and every ramdisk.
    pub pcr0: Pcr,
    /// Kernel, command line and the first ramdisk.
    pub pcr1: Pcr,
    /// Every ramdisk but the first: the application.
    pub pcr2: Pcr,
    /// The certificate that signed it, if it is signed.
    pub pcr8: Option<Pcr>,
}

/// On whose behalf and where an enclave runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentIdentity {
    role_arn: Option<String>,
    instance_id: String,
}

/// A text cannot be measured into a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {what} must be printable ASCII without spaces, and not empty")]
pub struct IdentityError {
    what: &'static str,
}

impl ParentIdentity {
    /// `role_arn` is for instance `arn:aws:iam::123456789012:role/Name`, `instance_id` is `i-0a22e5c5f24d22174`.
    ///
    /// # Errors
    /// [`IdentityError`] unless each is one or more ASCII characters without spaces and control characters: nobody could
    /// tell from a register that a text was empty or ended in a newline.
    pub fn new(role_arn: Option<&str>, instance_id: &str) -> Result<Self, IdentityError> {
        Ok(Self {
            role_arn: role_arn.map(|arn| checked(arn, "role ARN")).transpose()?,
            instance_id: checked(instance_id, "instance id")?,
        })
    }
}

fn checked(text: &str, what: &'static str) -> Result<String, IdentityError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(IdentityError { what });
    }
    Ok(text.to_owned())
}

impl PcrBank {
    /// The bank of an enclave that is about to start. Nothing else gives a platform register its value, so that an enclave
    /// whose bank is made once, before its first vCPU runs, cannot be made to look like another one later.
    pub fn at_boot(image: &MeasuredImage, parent: &ParentIdentity, debug_mode: bool) -> Self {
        let measured = |pcr| if debug_mode { Pcr::ZERO } else { pcr };
        let text = |text: &str| Pcr::ZERO.extended(text.as_bytes());
        Self::with_platform_values(|index| match index {
            0 => measured(image.pcr0),
            1 => measured(image.pcr1),
            2 => measured(image.pcr2),
            3 => parent.role_arn.as_deref().map_or(Pcr::ZERO, text),
            4 => text(&parent.instance_id),
            8 => measured(image.pcr8.unwrap_or(Pcr::ZERO)),
            _ => Pcr::ZERO,
        })
    }
}
