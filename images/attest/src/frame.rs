//! Messages on a stream: a length of two bytes, big-endian, and so many bytes.
//!
//! Each message has its own limits. A length outside of them is refused before memory is taken or a byte of it is read.

use std::io::{self, ErrorKind, Read, Write};

use attestation::MAX_DOCUMENT;

use crate::sealing::{OVERHEAD, RECEIPT_LEN};
use crate::{MAX_SECRET, NONCE_LEN};

/// A message of the conversation: its name, and how many bytes it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// For error messages.
    pub name: &'static str,
    /// The fewest bytes.
    pub min: u16,
    /// The most bytes.
    pub max: u16,
}

/// Chosen by who has the secret.
pub const NONCE: Message = message("the nonce", NONCE_LEN, NONCE_LEN);
/// What the platform says of the enclave.
pub const DOCUMENT: Message = message("the attestation document", 1, MAX_DOCUMENT);
/// The secret, encrypted.
pub const SEALED: Message = message("the encrypted secret", OVERHEAD + 1, OVERHEAD + MAX_SECRET);
/// Proof that it was decrypted.
pub const RECEIPT: Message = message("the receipt", RECEIPT_LEN, RECEIPT_LEN);

/// Fails to compile if a length does not fit into two bytes.
#[expect(clippy::cast_possible_truncation, reason = "asserted, at compile time")]
const fn message(name: &'static str, min: usize, max: usize) -> Message {
    assert!(min <= max && max <= u16::MAX as usize);
    Message {
        name,
        min: min as u16,
        max: max as u16,
    }
}

impl Message {
    /// Sends the message.
    pub fn send(&self, stream: &mut impl Write, bytes: &[u8]) -> Result<(), FrameError> {
        let length = u16::try_from(bytes.len()).map_err(|_| self.wrong_length(bytes.len()))?;
        self.check(length)?;
        let frame = [&length.to_be_bytes(), bytes].concat();
        stream
            .write_all(&frame)
            .and_then(|()| stream.flush())
            .map_err(|error| self.failed(error))
    }

    /// Receives the message.
    pub fn receive(&self, stream: &mut impl Read) -> Result<Vec<u8>, FrameError> {
        let mut length = [0; 2];
        stream
            .read_exact(&mut length)
            .map_err(|error| self.failed(error))?;
        let length = u16::from_be_bytes(length);
        self.check(length)?;
        let mut bytes = vec![0; length.into()];
        stream
            .read_exact(&mut bytes)
            .map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    fn check(&self, length: u16) -> Result<(), FrameError> {
        if (self.min..=self.max).contains(&length) {
            Ok(())
        } else {
            Err(self.wrong_length(length.into()))
        }
    }

    fn wrong_length(&self, found: usize) -> FrameError {
        FrameError::Length {
            message: *self,
            found,
        }
    }

    fn failed(&self, error: io::Error) -> FrameError {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                FrameError::Closed(self.name)
            }
            _ => FrameError::Stream {
                message: self.name,
                source: error,
            },
        }
    }
}

/// Why a message was not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its length is outside of its limits.
    #[error("{} has {found} bytes and must have {} to {}", message.name, message.min, message.max)]
    Length {
        /// Which message.
        message: Message,
        /// Its length.
        found: usize,
    },
    /// The other side has ended the connection before all of it was there.
    #[error("the other side closed the connection in place of {0}")]
    Closed(&'static str),
    /// The stream failed, or the time limit of a read or a write is over.
    #[error("cannot exchange {message}")]
    Stream {
        /// Which message.
        message: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHORT: Message = message("the test", 2, 4);

    #[test]
    fn a_message_is_its_length_and_its_bytes() {
        let mut stream = Vec::new();
        SHORT.send(&mut stream, b"abc").unwrap();
        assert_eq!(stream, b"\0\x03abc");
        assert_eq!(SHORT.receive(&mut stream.as_slice()).unwrap(), b"abc");
    }

    #[test]
    fn limits_are_those_of_the_protocol() {
        let limits = |message: Message| (message.min, message.max);
        assert_eq!(limits(NONCE), (32, 32));
        assert_eq!(limits(DOCUMENT), (1, 0x3000));
        assert_eq!(limits(SEALED), (49, 4144));
        assert_eq!(limits(RECEIPT), (32, 32));
    }

    #[test]
    fn a_length_outside_of_the_limits_is_neither_sent_nor_read() {
        for length in [0_u16, 1, 5, u16::MAX] {
            let mut sent = Vec::new();
            let error = SHORT.send(&mut sent, &vec![0; length.into()]).unwrap_err();
            assert!(matches!(error, FrameError::Length { .. }), "{error}");
            assert!(sent.is_empty());

            let stream = [&length.to_be_bytes()[..], &[0; 8]].concat();
            let mut stream = stream.as_slice();
            let error = SHORT.receive(&mut stream).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the test has {length} bytes and must have 2 to 4")
            );
            assert_eq!(stream.len(), 8, "only the length is taken");
        }
        let too_long = vec![0; usize::from(u16::MAX) + 4];
        assert!(
            SHORT.send(&mut Vec::new(), &too_long).is_err(),
            "modulo 65536 it is 3"
        );
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error() {
        for stream in [&b""[..], b"\0", b"\0\x03", b"\0\x03ab"] {
            let error = SHORT.receive(&mut &stream[..]).unwrap_err();
            assert!(
                matches!(error, FrameError::Closed("the test")),
                "{stream:?}: {error}"
            );
        }
    }

    proptest! {
        /// Any bytes: what is accepted is within the limits, was there, and is all that was taken.
        #[test]
        fn any_stream_is_read_within_bounds(stream in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in [NONCE, DOCUMENT, SEALED, RECEIPT, SHORT] {
                let mut rest = stream.as_slice();
                if let Ok(bytes) = message.receive(&mut rest) {
                    prop_assert!((message.min.into()..=message.max.into()).contains(&bytes.len()));
                    prop_assert_eq!(&stream[2..], &[&bytes, rest].concat());
                }
            }
        }

        #[test]
        fn what_is_sent_is_received(bytes in proptest::collection::vec(any::<u8>(), 1..=0x3000)) {
            let mut stream = Vec::new();
            DOCUMENT.send(&mut stream, &bytes).unwrap();
            prop_assert_eq!(DOCUMENT.receive(&mut stream.as_slice()).unwrap(), bytes);
        }
    }
}
