//! Names for what is built once and kept: they tell what it was built from.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// 16 hexadecimal digits that differ when any of the parts, or where one ends, differs.
pub(crate) fn of(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_and_every_border_changes_the_name() {
        let name = of(&[b"fragment", b"script", b"6.12.1"]);
        assert_eq!(name.len(), 16);
        assert_eq!(name, of(&[b"fragment", b"script", b"6.12.1"]));
        assert_ne!(name, of(&[b"fragment", b"script", b"6.12.2"]));
        assert_ne!(name, of(&[b"fragments", b"cript", b"6.12.1"]));
        assert_ne!(name, of(&[b"script", b"fragment", b"6.12.1"]));
    }
}
