//! Requests: what a guest may ask, from bytes.
//!
//! A request is one CBOR item: a name as text if the operation has no parameters, else a map of one pair from the name to
//! a map of parameters.
//!
//! ```text
//! {"DescribePCR": {"index": u16}}
//! {"ExtendPCR":   {"index": u16, "data": bytes}}
//! {"LockPCR":     {"index": u16}}
//! {"LockPCRs":    {"range": u16}}                                 locks 0 to range - 1
//! "DescribeNSM"                                                   or {"DescribeNSM": null}
//! "GetRandom"                                                     or {"GetRandom": null}
//! {"Attestation": {"user_data": bytes or null, "nonce": bytes or null, "public_key": bytes or null}}
//! ```
//!
//! Clients are written against AWS's `Request`, an enumeration that serde reads and writes. What such a type does with
//! requests that are unusual is done here too:
//!
//! | | |
//! |---|---|
//! | parameters in any order, integers of any width, indefinite lengths | accepted |
//! | bytes as a byte string, as an array of integers up to 255, as text | accepted |
//! | an `Attestation` parameter that is missing | the same as null |
//! | another parameter that is missing, or any that is there twice | refused |
//! | an unknown parameter | ignored, if its name is text and its value well-formed and at most 16 levels deep |
//! | an unknown operation; bytes after the item; an integer above 65535 | refused |
//!
//! Some forms that serde_cbor would read, and no client writes, are refused: numbers or byte strings for names, arrays for
//! maps, tags, text in pieces that are cut within a character. So whatever is accepted here, AWS's type accepts with the
//! same meaning.

use std::borrow::Cow;

use crate::error_code::ErrorCode;
use crate::reader::Reader;

/// The most bytes that a request may have.
pub const MAX_REQUEST: usize = 0x1000;

/// What a guest asks for. Bytes are borrowed from the request where they lie there in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// Value and lock of a PCR.
    DescribePcr {
        /// Which one. May be out of range.
        index: u16,
    },
    /// Extend a PCR.
    ExtendPcr {
        /// Which one. May be out of range.
        index: u16,
        /// Any number of bytes.
        data: Cow<'a, [u8]>,
    },
    /// Lock a PCR.
    LockPcr {
        /// Which one. May be out of range.
        index: u16,
    },
    /// Lock the first PCRs.
    LockPcrs {
        /// How many. May be out of range.
        range: u16,
    },
    /// What the module is and can do.
    DescribeNsm,
    /// Random bytes.
    GetRandom,
    /// A signed document that says what the enclave is. The fields may be longer than what an attestor accepts.
    Attestation {
        /// Application data to include.
        user_data: Option<Cow<'a, [u8]>>,
        /// Included so that whoever made it up knows that the document is new.
        nonce: Option<Cow<'a, [u8]>>,
        /// Key of the enclave to include.
        public_key: Option<Cow<'a, [u8]>>,
    },
}

/// What fulfilling a request takes, for whoever limits rates. Each class costs what the one before costs, or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cost {
    /// Memory is read, or random bytes are drawn.
    Lookup,
    /// PCRs change, and the change is written down.
    Change,
    /// A signature is made.
    Signature,
}

/// Why bytes are not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`MAX_REQUEST`]. Nothing was read.
    #[error("a request of {length} bytes; {MAX_REQUEST} are accepted")]
    TooLarge {
        /// Its length in bytes.
        length: usize,
    },
    /// Not CBOR, cut off, or a value of a type that is not accepted there.
    #[error("malformed or unexpected CBOR at byte {position} of a request")]
    Malformed {
        /// Where, in bytes from the beginning.
        position: usize,
    },
    /// A parameter that is to be ignored contains too many levels.
    #[error("CBOR that is nested too deeply at byte {position} of a request")]
    TooDeep {
        /// Where, in bytes from the beginning.
        position: usize,
    },
    /// Bytes follow the request.
    #[error("bytes after the end of a request, from byte {position} on")]
    TrailingBytes {
        /// Where the request ends, in bytes from the beginning.
        position: usize,
    },
    /// No operation of this name, or none with or without parameters as it was.
    #[error("a request for an unknown operation")]
    UnknownOperation,
    /// A parameter that the operation needs is not there.
    #[error("a request without its parameter \"{name}\"")]
    MissingParameter {
        /// Which one.
        name: &'static str,
    },
    /// A parameter is there twice.
    #[error("a request with a second parameter \"{name}\"")]
    DuplicateParameter {
        /// Which one.
        name: &'static str,
    },
}

impl RequestError {
    /// What the guest is told.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::InputTooLarge,
            Self::Malformed { .. }
            | Self::TooDeep { .. }
            | Self::TrailingBytes { .. }
            | Self::UnknownOperation
            | Self::MissingParameter { .. }
            | Self::DuplicateParameter { .. } => ErrorCode::InvalidOperation,
        }
    }
}

impl<'a> Request<'a> {
    /// Reads all of `bytes` as one request.
    ///
    /// # Errors
    /// [`RequestError`] for anything but the forms above.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RequestError> {
        if bytes.len() > MAX_REQUEST {
            return Err(RequestError::TooLarge { length: bytes.len() });
        }
        let mut reader = Reader::new(bytes);
        let request = if reader.takes_map_of_one() {
            named_with_parameters(&mut reader)?
        } else {
            named(&mut reader)?
        };
        reader.end()?;
        Ok(request)
    }

    /// What fulfilling it takes.
    pub const fn cost(&self) -> Cost {
        match self {
            Self::DescribePcr { .. } | Self::DescribeNsm | Self::GetRandom => Cost::Lookup,
            Self::ExtendPcr { .. } | Self::LockPcr { .. } | Self::LockPcrs { .. } => Cost::Change,
            Self::Attestation { .. } => Cost::Signature,
        }
    }
}

fn named<'a>(reader: &mut Reader<'a>) -> Result<Request<'a>, RequestError> {
    match &*reader.text()? {
        "DescribeNSM" => Ok(Request::DescribeNsm),
        "GetRandom" => Ok(Request::GetRandom),
        _ => Err(RequestError::UnknownOperation),
    }
}

fn named_with_parameters<'a>(reader: &mut Reader<'a>) -> Result<Request<'a>, RequestError> {
    match &*reader.text()? {
        "DescribePCR" => Ok(Request::DescribePcr {
            index: number(reader, "index")?,
        }),
        "ExtendPCR" => extend_pcr(reader),
        "LockPCR" => Ok(Request::LockPcr {
            index: number(reader, "index")?,
        }),
        "LockPCRs" => Ok(Request::LockPcrs {
            range: number(reader, "range")?,
        }),
        "DescribeNSM" => reader.nothing().map(|()| Request::DescribeNsm),
        "GetRandom" => reader.nothing().map(|()| Request::GetRandom),
        "Attestation" => attestation(reader),
        _ => Err(RequestError::UnknownOperation),
    }
}

/// The parameters of an operation that has one, a number.
fn number(reader: &mut Reader<'_>, name: &'static str) -> Result<u16, RequestError> {
    let mut number = Parameter::new(name);
    reader.fields(|reader, found| {
        if found == name {
            number.set(reader.u16()?)
        } else {
            reader.skip()
        }
    })?;
    number.required()
}

fn extend_pcr<'a>(reader: &mut Reader<'a>) -> Result<Request<'a>, RequestError> {
    let mut index = Parameter::new("index");
    let mut data = Parameter::new("data");
    reader.fields(|reader, name| match name {
        "index" => index.set(reader.u16()?),
        "data" => data.set(reader.bytes()?),
        _ => reader.skip(),
    })?;
    Ok(Request::ExtendPcr {
        index: index.required()?,
        data: data.required()?,
    })
}

fn attestation<'a>(reader: &mut Reader<'a>) -> Result<Request<'a>, RequestError> {
    let mut user_data = Parameter::new("user_data");
    let mut nonce = Parameter::new("nonce");
    let mut public_key = Parameter::new("public_key");
    reader.fields(|reader, name| match name {
        "user_data" => user_data.set(reader.optional_bytes()?),
        "nonce" => nonce.set(reader.optional_bytes()?),
        "public_key" => public_key.set(reader.optional_bytes()?),
        _ => reader.skip(),
    })?;
    Ok(Request::Attestation {
        user_data: user_data.value.flatten(),
        nonce: nonce.value.flatten(),
        public_key: public_key.value.flatten(),
    })
}

/// A parameter that may be there once.
struct Parameter<T> {
    name: &'static str,
    value: Option<T>,
}

impl<T> Parameter<T> {
    fn new(name: &'static str) -> Self {
        Self { name, value: None }
    }

    fn set(&mut self, value: T) -> Result<(), RequestError> {
        match self.value.replace(value) {
            None => Ok(()),
            Some(_) => Err(RequestError::DuplicateParameter { name: self.name }),
        }
    }

    fn required(self) -> Result<T, RequestError> {
        self.value
            .ok_or(RequestError::MissingParameter { name: self.name })
    }
}
