//! Just enough DER (X.690) to write a certificate, field by field, without the code under test.

const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// Tag, length, content.
pub(crate) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..=0x7f) => der.push(short),
        Ok(medium) => der.extend([0x81, medium]),
        Err(_) => {
            let long = u16::try_from(content.len()).unwrap_or(u16::MAX);
            der.push(0x82);
            der.extend(long.to_be_bytes());
        }
    }
    der.extend_from_slice(content);
    der
}

pub(crate) fn sequence(items: &[&[u8]]) -> Vec<u8> {
    value(SEQUENCE, &items.concat())
}

pub(crate) fn integer(number: u8) -> Vec<u8> {
    value(INTEGER, &[number & 0x7f])
}

pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    value(BIT_STRING, &[&[0], bytes].concat())
}

pub(crate) fn object_identifier(content: &[u8]) -> Vec<u8> {
    value(OBJECT_IDENTIFIER, content)
}

/// Such as `20240101000000Z`.
pub(crate) fn time(text: &str) -> Vec<u8> {
    value(GENERALIZED_TIME, text.as_bytes())
}

/// A name of these attributes; the first part of each is the last arc of its object identifier below 2.5.4.
pub(crate) fn name(attributes: &[(u8, &str)]) -> Vec<u8> {
    let attributes: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(arc, text)| {
            let kind = object_identifier(&[0x55, 4, *arc]);
            let text = value(UTF8_STRING, text.as_bytes());
            value(SET, &sequence(&[&kind, &text]))
        })
        .collect();
    value(SEQUENCE, &attributes.concat())
}
