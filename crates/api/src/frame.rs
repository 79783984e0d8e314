//! Framing of client and daemon messages: a four-byte big-endian length, then that many bytes of JSON.
//!
//! A reader takes [`HEADER_LEN`] bytes, asks [`body_len`] how much follows, reads that and calls [`decode`]. The limit
//! is given by the reader, because the two directions differ: a request is small, a description may carry an image's
//! whole metadata.

use serde::{Serialize, de::DeserializeOwned};

/// Bytes before the JSON body.
pub const HEADER_LEN: usize = 4;

/// The longest request, in bytes of JSON, that the daemon reads.
pub const MAX_REQUEST: usize = 192 * 1024;

/// The longest reply, in bytes of JSON, that a client reads.
pub const MAX_REPLY: usize = 16 * 1024 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length in the header exceeds the reader's limit; the connection cannot be resynchronised.
    #[error("message of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// Body length announced by the header, in bytes.
        length: usize,
        /// What the reader accepts, in bytes.
        limit: usize,
    },
    /// The body is not the expected JSON.
    #[error("malformed message")]
    Malformed(#[from] serde_json::Error),
}

/// The whole frame, header and JSON body, for `message`.
///
/// # Errors
/// [`FrameError::Malformed`] if the message has no JSON form, [`FrameError::TooLong`] above [`MAX_REPLY`].
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER_LEN];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - HEADER_LEN;
    let too_long = FrameError::TooLong {
        length,
        limit: MAX_REPLY,
    };
    if length > MAX_REPLY {
        return Err(too_long);
    }
    let prefix = u32::try_from(length).map_err(|_| too_long)?;
    bytes[..HEADER_LEN].copy_from_slice(&prefix.to_be_bytes());
    Ok(bytes)
}

/// The length in bytes of the body that follows `header`.
///
/// # Errors
/// [`FrameError::TooLong`] if it exceeds `limit`.
pub fn body_len(header: [u8; HEADER_LEN], limit: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    Ok(length)
}

/// The message in a frame's body.
///
/// # Errors
/// [`FrameError::Malformed`].
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, Failure, Reply};

    #[test]
    fn a_message_survives_encoding_and_decoding() {
        let reply = Reply::Error(Failure::new(
            ErrorCode::InsufficientMemoryAvailable,
            "no 2 MiB hugepages left",
        ));

        let bytes = encode(&reply).unwrap();
        let header = bytes[..HEADER_LEN].try_into().unwrap();

        assert_eq!(body_len(header, MAX_REPLY).unwrap(), bytes.len() - HEADER_LEN);
        assert_eq!(decode::<Reply>(&bytes[HEADER_LEN..]).unwrap(), reply);
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        let error = body_len(0xffff_ffff_u32.to_be_bytes(), MAX_REQUEST).unwrap_err();

        assert!(matches!(
            error,
            FrameError::TooLong {
                length: 0xffff_ffff,
                limit: MAX_REQUEST
            }
        ));
    }

    #[test]
    fn an_unknown_request_is_malformed_not_ignored() {
        let error = decode::<crate::Request>(br#"{"request":"describe_enclaves","extra":1}"#).unwrap_err();

        assert!(matches!(error, FrameError::Malformed(_)), "{error}");
    }
}
