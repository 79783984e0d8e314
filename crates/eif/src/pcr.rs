//! The value of a platform configuration register (PCR), and how it comes about.
//!
//! A register starts at zero and only ever changes by being extended: `new = H(old ‖ data)`, where `H` is SHA-384. An
//! image's registers are extended once, with the digest of what they measure. The registers for the instance (3 and 4)
//! are extended once with the text itself.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest, Sha384};

/// Bytes in a SHA-384 digest.
const PCR_LEN: usize = 48;

/// Bytes read at a time.
const BUFFER_LEN: usize = 128 * 1024;

/// A register's value. Shown as 96 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pcr([u8; PCR_LEN]);

impl Pcr {
    /// A register that was never extended.
    pub const ZERO: Self = Self([0; PCR_LEN]);

    /// `H(0⁴⁸ ‖ H(data))`, the form of PCR0, 1, 2 and 8.
    pub fn of_data(data: &[u8]) -> Self {
        Self::of_digest(Sha384::digest(data).into())
    }

    /// The same of everything that `source` has, in bounded memory.
    ///
    /// # Errors
    /// What the source reports.
    pub fn of_reader(source: &mut impl Read) -> io::Result<Self> {
        let mut hash = Sha384::new();
        let mut buffer = vec![0; BUFFER_LEN];
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(Self::of_digest(hash.finalize().into())),
                Ok(length) => hash.update(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `H(0⁴⁸ ‖ digest)`, for data that was hashed elsewhere.
    pub fn of_digest(digest: [u8; PCR_LEN]) -> Self {
        Self::ZERO.extend_digest(digest)
    }

    /// This register extended with the digest of something.
    #[must_use]
    pub fn extend_digest(self, digest: [u8; PCR_LEN]) -> Self {
        self.extend_raw(&digest)
    }

    /// This register extended with `data` as it is, of any length: what the NSM's `ExtendPCR` does, and how PCR3 (role
    /// ARN) and PCR4 (instance id) come from [`Pcr::ZERO`].
    #[must_use]
    pub fn extend_raw(self, data: &[u8]) -> Self {
        Self(
            Sha384::new()
                .chain_update(self.0)
                .chain_update(data)
                .finalize()
                .into(),
        )
    }

    /// The register with this value.
    pub fn from_bytes(value: [u8; PCR_LEN]) -> Self {
        Self(value)
    }

    /// The value.
    pub fn as_bytes(&self) -> &[u8; PCR_LEN] {
        &self.0
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

impl fmt::LowerHex for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(self, f)
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pcr({self:x})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_measurement_is_the_value_known_from_single_ramdisk_images() {
        assert_eq!(
            Pcr::of_data(b"").to_string(),
            "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a"
        );
    }

    #[test]
    fn pcr3_and_pcr4_are_raw_extends_of_the_text() {
        let known = [
            (
                "arn:aws:iam::123456789012:role/Test",
                "bd1333825303268a6c7e47cf428ef78e04c71fd252ece83f9cbf2a7afdfd2cd13f72ca43a6a9ed680605640255e76510",
            ),
            (
                "i-0a22e5c5f24d22174",
                "45706d7b621e4620a332e147a5ddb000b049f73d47d3e61f6b03d2069152d4df6a4a786ad1c10102b955799a9dc96b44",
            ),
            (
                "i-0368fa67e156d6d23",
                "245617239e18ae8eb5150c2be45200db1e6b1e483d94c81d8386171eaad6cf641a1c90f1571f185426c82f77783feb37",
            ),
            (
                "i-026ae32a18c80f866",
                "6e32db11ec7af5927b05c4d9059edfae96f45f50f8b54f59f19f0a093db9085049b01a9759cacbc5922db5aaba0be067",
            ),
        ];
        for (text, expected) in known {
            assert_eq!(
                Pcr::ZERO.extend_raw(text.as_bytes()).to_string(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn a_source_is_measured_as_what_it_holds() {
        for length in [0, 1, BUFFER_LEN, BUFFER_LEN + 1] {
            let data = vec![7; length];
            assert_eq!(Pcr::of_reader(&mut &data[..]).unwrap(), Pcr::of_data(&data));
        }
    }

    #[test]
    fn extending_twice_depends_on_the_order() {
        let ab = Pcr::ZERO.extend_raw(b"a").extend_raw(b"b");
        let ba = Pcr::ZERO.extend_raw(b"b").extend_raw(b"a");

        assert_ne!(ab, ba);
        assert_eq!(Pcr::of_data(b"a"), Pcr::of_digest(Sha384::digest(b"a").into()));
    }

    #[test]
    fn hexadecimal_goes_both_ways_and_nothing_else_is_taken() {
        let pcr = Pcr::of_data(b"x");
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
        ] {
            assert_eq!(Pcr::from_hex(wrong), Err(ParsePcrError), "{wrong}");
        }
        assert_eq!(Pcr::from_hex(&"é".repeat(48)), Err(ParsePcrError));
    }
}
