//! The Enclave Image Format (EIF): read, measure, check, build.
//!
//! # The file
//!
//! An EIF carries what an enclave boots from. All integers are big-endian.
//!
//! ```text
//! offset 0      header, 548 bytes: ".eif", version, flags, 32 section offsets and sizes, CRC-32
//! offset 548    section header, 12 bytes: type, flags, size
//!               section data
//!               section header
//!               section data
//!               …
//! ```
//!
//! Sections follow one another without gaps. There is one kernel, one command line, any number of ramdisks after the
//! kernel, at most one signature (since version 3) and in version 4 exactly one block of metadata (JSON). The loader
//! joins the ramdisks in file order into one initramfs.
//!
//! # The measurements
//!
//! A platform configuration register (PCR) of an image is `H(0⁴⁸ ‖ H(data))`, where `H` is SHA-384 and `data` is made of
//! section data alone, in file order. Headers and metadata are not measured.
//!
//! | PCR | data |
//! |---|---|
//! | 0 | kernel, command line, every ramdisk |
//! | 1 | kernel, command line, the first ramdisk |
//! | 2 | every ramdisk but the first |
//! | 8 | the certificate (DER) that signed the image |
//!
//! # Ways in
//!
//! - A loader reads a [`Layout`] first: a checked table of contents, a few small positioned reads. It then streams the
//!   sections to where they belong and feeds the same bytes to a [`Measurer`] and a [`FileCrc`], so that each byte of
//!   the file is read once. Nothing here holds a section in memory.
//! - [`inspect()`] does the whole pass for a tool that only wants to know what is in a file, and reads the [`Metadata`] and
//!   the [`SignatureSection`] too.
//! - A [`Builder`] writes a version 4 file, or the copy of a file that is to be signed. The crate `eif-signature` has the
//!   keys and the mathematics; here is only where signatures are and what they look like.
//!
//! Everything that comes out of a file is checked once, where it is parsed, and is an [`EifError`] with its file offset
//! if it is wrong. No input makes this crate panic, and none makes it allocate more than the limits stated in
//! [`MAX_METADATA`] and [`MAX_SIGNATURE`] call for.

#![forbid(unsafe_code)]

mod builder;
mod cbor;
mod cose;
mod crc;
mod error;
mod header;
mod inspect;
mod layout;
mod measure;
mod metadata;
mod pcr;
pub mod pem;
mod read_at;
mod section;
mod signature;

pub use builder::{Builder, RamdiskWriter, WriteError};
pub use cose::{CoseAlgorithm, CoseError, CoseSign1};
pub use crc::FileCrc;
pub use error::EifError;
pub use header::{Arch, HEADER_LEN, Header, MAX_SECTIONS};
pub use inspect::{Inspection, inspect};
pub use layout::Layout;
pub use measure::{Measurements, Measurer};
pub use metadata::{BuildMetadata, MAX_METADATA, Metadata};
pub use pcr::{ParsePcrError, Pcr};
pub use read_at::ReadAt;
pub use section::{SECTION_HEADER_LEN, Section, SectionKind};
pub use signature::{MAX_SIGNATURE, SignatureError, SignatureSection};
