//! What is in a PEM text (RFC 7468): base64 between two lines that name what it is, such as a certificate.
//!
//! A certificate is taken for what it is, bytes: PCR8 is a digest of its DER form, and nothing here looks into it further
//! than to see that it is one whole DER sequence.

/// The label of a certificate.
const CERTIFICATE: &str = "CERTIFICATE";

/// The first byte of a DER sequence, which a certificate is.
const DER_SEQUENCE: u8 = 0x30;

/// Why a text does not have what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The opening line is not there.
    #[error("no line -----BEGIN {label}-----")]
    NoBegin {
        /// What was looked for.
        label: &'static str,
    },
    /// The closing line is not there.
    #[error("no line -----END {label}-----")]
    NoEnd {
        /// What was looked for.
        label: &'static str,
    },
    /// The lines between are not base64.
    #[error("malformed base64 at byte {position} of the PEM text")]
    Base64 {
        /// Offset in the text, in bytes.
        position: usize,
    },
    /// The decoded bytes are not one DER sequence.
    #[error("the PEM text does not hold one whole DER sequence")]
    NotDer,
}

/// The DER bytes of the first certificate in `text`. What comes before and after it is ignored, as OpenSSL does.
///
/// # Errors
/// See [`PemError`].
pub fn certificate_der(text: &[u8]) -> Result<Vec<u8>, PemError> {
    der(text, CERTIFICATE)
}

/// The DER bytes of the first `label` in `text`, likewise.
///
/// # Errors
/// See [`PemError`].
pub fn der(text: &[u8], label: &'static str) -> Result<Vec<u8>, PemError> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let start = find(text, begin.as_bytes()).ok_or(PemError::NoBegin { label })? + begin.len();
    let body = text.get(start..).unwrap_or_default();
    let length = find(body, end.as_bytes()).ok_or(PemError::NoEnd { label })?;
    let body = body.get(..length).unwrap_or_default();
    let der = decode_base64(body).map_err(|at| PemError::Base64 { position: start + at })?;
    if is_one_der_sequence(&der) {
        Ok(der)
    } else {
        Err(PemError::NotDer)
    }
}

/// Where `needle`, which is not empty, first occurs.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Base64 with padding (RFC 4648, section 4); white space is skipped. The error is the position of the wrong byte.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut group = 0_u32;
    let mut digits = 0;
    let mut padding = 0;
    for (position, &byte) in text.iter().enumerate() {
        if byte.is_ascii_whitespace() {
            continue;
        }
        let value = match byte {
            b'=' if digits >= 2 => {
                padding += 1;
                0
            }
            _ if padding == 0 => base64_digit(byte).ok_or(position)?,
            _ => return Err(position),
        };
        group = group << 6 | value;
        digits += 1;
        if digits == 4 {
            let [_, a, b, c] = group.to_be_bytes();
            let bytes = [a, b, c];
            let (kept, dropped) = bytes.split_at_checked(3 - padding).ok_or(position)?;
            if dropped.iter().any(|bits| *bits != 0) {
                return Err(position);
            }
            out.extend_from_slice(kept);
            (group, digits) = (0, 0);
        }
    }
    if digits == 0 { Ok(out) } else { Err(text.len()) }
}

fn base64_digit(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

/// Whether the length in the outermost DER header is exactly that of the rest.
fn is_one_der_sequence(der: &[u8]) -> bool {
    let [DER_SEQUENCE, first, rest @ ..] = der else {
        return false;
    };
    if *first < 0x80 {
        return rest.len() == usize::from(*first);
    }
    let length_bytes = usize::from(*first & 0x7f);
    match rest.split_at_checked(length_bytes) {
        Some((length, content)) if (1..=4).contains(&length_bytes) => {
            length.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)) == content.len() as u64
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pem(body: &str) -> Vec<u8> {
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").into_bytes()
    }

    #[test]
    fn text_around_the_first_certificate_is_ignored() {
        let mut text = b"subject: someone\n".to_vec();
        text.extend(pem("MAMC\r\nAQ  c="));
        text.extend(pem("MAA="));

        assert_eq!(certificate_der(&text), Ok(vec![0x30, 3, 2, 1, 7]));
    }

    #[test]
    fn what_has_another_label_is_passed_over() {
        let text = b"-----BEGIN EC PARAMETERS-----\nBgUr\n-----END EC PARAMETERS-----\n\
                     -----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n";

        assert_eq!(der(text, "EC PRIVATE KEY"), Ok(vec![0x30, 0]));
        assert_eq!(
            der(text, "PRIVATE KEY"),
            Err(PemError::NoBegin { label: "PRIVATE KEY" })
        );
    }

    #[test]
    fn each_length_form_of_der_is_checked() {
        let with_length = |header: &[u8], content: usize| {
            let mut der = header.to_vec();
            der.resize(header.len() + content, 0);
            is_one_der_sequence(&der)
        };
        assert!(with_length(&[0x30, 0x05], 5));
        assert!(with_length(&[0x30, 0x81, 0x80], 0x80));
        assert!(with_length(&[0x30, 0x82, 0x01, 0x00], 0x100));
        assert!(!with_length(&[0x30, 0x05], 4));
        assert!(!with_length(&[0x30, 0x05], 6));
        assert!(!with_length(&[0x30, 0x80], 0));
        assert!(!with_length(&[0x30, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 1], 1));
        assert!(!with_length(&[0x30, 0x82, 0x01], 0));
        assert!(!with_length(&[0x31, 0x00], 0));
        assert!(!with_length(&[0x30], 0));
        assert!(!with_length(&[], 0));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let label = CERTIFICATE;
        assert_eq!(certificate_der(b""), Err(PemError::NoBegin { label }));
        assert_eq!(
            certificate_der(b"-----BEGIN CERTIFICATE-----\nMAA="),
            Err(PemError::NoEnd { label })
        );
        assert_eq!(certificate_der(&pem("")), Err(PemError::NotDer));
        assert_eq!(certificate_der(&pem("BAA=")), Err(PemError::NotDer));
        let first = "-----BEGIN CERTIFICATE-----".len() + 1;
        for (body, at) in [
            ("MA!=", 2),
            ("MA=A", 3),
            ("M===", 1),
            ("====", 0),
            ("MAB=", 3),
            ("MAA", 4),
        ] {
            assert_eq!(
                certificate_der(&pem(body)),
                Err(PemError::Base64 { position: first + at }),
                "{body}"
            );
        }
    }

    /// Base64 the slow and obvious way: the text as one string of bits.
    fn encode_base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
            .collect();
        let mut text: String = bits
            .chunks(6)
            .map(|chunk| {
                let value =
                    chunk.iter().fold(0, |value, bit| value << 1 | usize::from(*bit)) << (6 - chunk.len());
                char::from(DIGITS[value])
            })
            .collect();
        while !text.len().is_multiple_of(4) {
            text.push('=');
        }
        text
    }

    proptest! {
        #[test]
        fn base64_of_any_bytes_is_decoded(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode_base64(encode_base64(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn any_text_is_decoded_or_refused(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(bytes) = decode_base64(&text) {
                let digits: Vec<u8> = text.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
                prop_assert_eq!(encode_base64(&bytes).into_bytes(), digits);
            }
        }
    }
}
