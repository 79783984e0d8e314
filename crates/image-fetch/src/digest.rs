//! Digests of blobs, as OCI writes them: `sha256:<hex>`.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256, Sha512};

/// A digest that some bytes must have. SHA-256 and SHA-512 are what the OCI image specification registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    /// Lower-case hexadecimal digits.
    hex: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Digest {
    /// Parses `algorithm:hex`. `None` when the algorithm is unknown or the digits are not right for it.
    pub fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        let (algorithm, length) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return None,
        };
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_hex && hex.len() == length).then(|| Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }

    /// The SHA-256 of some bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Whether some bytes have this digest.
    pub fn check(&self, bytes: &[u8]) -> Result<(), DigestMismatch> {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(bytes);
        let actual = hasher.finish();
        if actual == *self {
            Ok(())
        } else {
            Err(DigestMismatch {
                expected: self.clone(),
                actual,
            })
        }
    }

    /// Its hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Where an OCI layout keeps the blob.
    pub fn blob_path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm, self.hex)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.algorithm, self.hex)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        })
    }
}

#[derive(Debug)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Digest {
        let (algorithm, bytes) = match self {
            Self::Sha256(hasher) => (Algorithm::Sha256, hasher.finalize().to_vec()),
            Self::Sha512(hasher) => (Algorithm::Sha512, hasher.finalize().to_vec()),
        };
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
        let hex = bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
            .collect();
        Digest { algorithm, hex }
    }
}

/// Passes bytes through and hashes them, if there is a digest to compare with.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    expected: Option<(Digest, Hasher)>,
}

impl<R: Read> HashingReader<R> {
    /// Reads from `inner`.
    pub fn new(inner: R, expected: Option<Digest>) -> Self {
        let expected = expected.map(|digest| {
            let hasher = Hasher::new(digest.algorithm);
            (digest, hasher)
        });
        Self { inner, expected }
    }

    /// Reads what is left, if that matters for the digest.
    pub fn drain(&mut self) -> io::Result<()> {
        if self.expected.is_some() {
            io::copy(self, &mut io::sink())?;
        }
        Ok(())
    }

    /// The source, and whether all that was read has the digest.
    pub fn into_verdict(self) -> (R, Result<(), DigestMismatch>) {
        let verdict = match self.expected {
            None => Ok(()),
            Some((expected, hasher)) => {
                let actual = hasher.finish();
                if actual == expected {
                    Ok(())
                } else {
                    Err(DigestMismatch { expected, actual })
                }
            }
        };
        (self.inner, verdict)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if let Some((_, hasher)) = &mut self.expected {
            hasher.update(&buffer[..count]);
        }
        Ok(count)
    }
}

/// Bytes have another digest than they must.
#[derive(Debug, thiserror::Error)]
#[error("the digest is {actual}, not {expected}")]
pub struct DigestMismatch {
    /// What the digest must be.
    pub expected: Digest,
    /// What it is.
    pub actual: Digest,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn known_answers() {
        assert_eq!(Digest::sha256(b"abc").to_string(), ABC);
        Digest::parse(ABC).unwrap().check(b"abc").unwrap();
        let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        Digest::parse(sha512).unwrap().check(b"abc").unwrap();
        assert_eq!(
            Digest::parse(ABC).unwrap().check(b"abd").unwrap_err().actual,
            Digest::sha256(b"abd")
        );
    }

    #[test]
    fn only_well_formed_digests_are_taken() {
        let upper = ABC.to_uppercase();
        let traversal = format!("sha256:{}", "../".repeat(21) + "x");
        for text in [
            "",
            "sha256",
            "sha256:",
            "sha256:ba78",
            "md5:900150983cd24fb0d6963f7d28e17f72",
            &upper,
            &traversal,
        ] {
            assert!(Digest::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_reader_hashes_what_the_caller_left_unread() {
        for (bytes, is_right) in [(&b"abc"[..], true), (b"abcd", false)] {
            let mut reader = HashingReader::new(bytes, Digest::parse(ABC));
            reader.read_exact(&mut [0; 1]).unwrap();
            reader.drain().unwrap();
            assert_eq!(reader.into_verdict().1.is_ok(), is_right);
        }
    }
}
