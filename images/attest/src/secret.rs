//! What the enclave is given.

use zeroize::Zeroizing;

/// The longest secret, in bytes.
pub const MAX_SECRET: usize = 4096;

/// 1 to [`MAX_SECRET`] bytes that are cleared from memory when they are no longer needed, and never printed.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes if there are neither none nor too many.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretLength> {
        let bytes = Zeroizing::new(bytes);
        if bytes.is_empty() || bytes.len() > MAX_SECRET {
            return Err(SecretLength);
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// No bytes, or too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret must have 1 to {MAX_SECRET} bytes")]
pub struct SecretLength;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_limited() {
        for length in [1, MAX_SECRET] {
            assert_eq!(Secret::new(vec![7; length]).unwrap().bytes().len(), length);
        }
        for length in [0, MAX_SECRET + 1] {
            assert_eq!(Secret::new(vec![7; length]).unwrap_err(), SecretLength);
        }
    }

    #[test]
    fn it_is_not_printed() {
        let printed = format!("{:?}", Secret::new(vec![77; 3]).unwrap());
        assert_eq!(printed, "Secret { .. }");
    }
}
