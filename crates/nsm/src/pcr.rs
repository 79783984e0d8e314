//! The value of a platform configuration register (PCR).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

/// Bytes in a SHA-384 digest, and so in a PCR.
pub const PCR_LEN: usize = 48;

/// A register's value. Shown, and serialised, as 96 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pcr(pub [u8; PCR_LEN]);

impl Pcr {
    /// A register that was never extended.
    pub const ZERO: Self = Self([0; PCR_LEN]);

    /// `H(this ‖ data)`, where `H` is SHA-384: the only way in which a register changes. `data` is taken as it is, of any
    /// length.
    #[must_use]
    pub fn extended(self, data: &[u8]) -> Self {
        let digest = Sha384::new().chain_update(self.0).chain_update(data);
        Self(digest.finalize().into())
    }

    /// The value written as 96 hexadecimal digits of either case.
    ///
    /// # Errors
    /// [`ParsePcrError`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, ParsePcrError> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let pairs: &[[u8; 2]; PCR_LEN] = pairs.try_into().map_err(|_| ParsePcrError)?;
        if !rest.is_empty() {
            return Err(ParsePcrError);
        }
        let mut value = [0; PCR_LEN];
        for (byte, [high, low]) in value.iter_mut().zip(pairs) {
            *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
        }
        Ok(Self(value))
    }
}

/// A text is not 96 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PCR is written as 96 hexadecimal digits")]
pub struct ParsePcrError;

fn hex_digit(digit: u8) -> Result<u8, ParsePcrError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(ParsePcrError),
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pcr({self})")
    }
}

impl TryFrom<String> for Pcr {
    type Error = ParsePcrError;

    fn try_from(text: String) -> Result<Self, ParsePcrError> {
        Self::from_hex(&text)
    }
}

impl From<Pcr> for String {
    fn from(pcr: Pcr) -> Self {
        pcr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_both_ways_and_nothing_else_is_taken() {
        let pcr = Pcr::ZERO.extended(b"x");
        let text = pcr.to_string();

        assert_eq!(Pcr::from_hex(&text), Ok(pcr));
        assert_eq!(Pcr::from_hex(&text.to_uppercase()), Ok(pcr));
        assert_eq!(format!("{pcr:?}"), format!("Pcr({text})"));
        for wrong in [
            "",
            "00",
            &text[1..],
            &format!("{text}0"),
            &format!("{text}00"),
            &text.replace('a', "g"),
            &"é".repeat(48),
        ] {
            assert_eq!(Pcr::from_hex(wrong), Err(ParsePcrError), "{wrong}");
        }
    }

    #[test]
    fn extending_hashes_the_old_value_and_the_data() {
        // PCR2 of an image with a single ramdisk: an extend with the digest of nothing.
        let nothing = Sha384::digest(b"");
        assert_eq!(
            Pcr::ZERO.extended(&nothing).to_string(),
            "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a"
        );
        let once = Pcr::ZERO.extended(b"a");
        let joined = [&once.0[..], b"bc"].concat();
        assert_eq!(
            once.extended(b"bc").0,
            <[u8; PCR_LEN]>::from(Sha384::digest(joined))
        );
        assert_ne!(once.extended(b"b"), Pcr::ZERO.extended(b"b").extended(b"a"));
    }
}
