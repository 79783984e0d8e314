//! What the extended headers before an entry say about it.

use super::TarError;
use super::sparse::PaxSparse;

/// Prefix of the records that carry extended attributes; star's, which container tools adopted.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Values that replace or complete those of the entry's own header.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
    /// GNU `L`; a pax `path` is stronger.
    pub(super) long_name: Option<Vec<u8>>,
    /// GNU `K`; a pax `linkpath` is stronger.
    pub(super) long_link: Option<Vec<u8>>,
    seen: bool,
}

impl Extensions {
    /// Whether no extended header came before the entry.
    pub(super) fn is_empty(&self) -> bool {
        !self.seen && self.long_name.is_none() && self.long_link.is_none()
    }

    /// Takes over the records of a pax header. Unknown ones are ignored, as POSIX says.
    pub(super) fn add_pax(&mut self, records: &[u8], offset: u64) -> Result<(), TarError> {
        self.seen = true;
        let mut rest = records;
        while !rest.is_empty() {
            let (key, value, after) = split_record(rest).ok_or(TarError::Pax(offset))?;
            self.set(key, value).ok_or(TarError::Pax(offset))?;
            rest = after;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = file_name(value)?,
            b"linkpath" => self.link_path = file_name(value)?,
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(seconds(value)?),
            b"GNU.sparse.major" => self.sparse.major = decimal(value)?,
            b"GNU.sparse.minor" => self.sparse.minor = decimal(value)?,
            b"GNU.sparse.name" => self.sparse.name = file_name(value)?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(decimal(value)?),
            b"GNU.sparse.map" => self.sparse.set_map(value)?,
            b"GNU.sparse.offset" => self.sparse.add_offset(decimal(value)?)?,
            b"GNU.sparse.numbytes" => self.sparse.add_length(decimal(value)?)?,
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// Splits off one record, `<length> <key>=<value>\n`, where the length counts the whole record.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let (record, after) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((&body[..equals], &body[equals + 1..], after))
}

/// A name or link target; empty means that the header's own counts.
#[expect(
    clippy::option_option,
    reason = "the outer one is failure, the inner one is the value"
)]
fn file_name(value: &[u8]) -> Option<Option<Vec<u8>>> {
    if value.contains(&0) {
        return None;
    }
    Some((!value.is_empty()).then(|| value.to_vec()))
}

/// An unsigned decimal number of digits alone.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A time with an optional fraction, rounded towards the past as the kernel's clock does.
fn seconds(value: &[u8]) -> Option<i64> {
    let (is_negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let has_fraction = fraction.iter().any(|digit| *digit != b'0');
    Some(if is_negative {
        -whole - i64::from(has_fraction)
    } else {
        whole
    })
}
