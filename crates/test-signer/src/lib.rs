//! For tests: keys that are the same every time, and self-signed certificates for them. The keys are no secrets.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "constants that work in one test work in all")]

mod der;

use p256::ecdsa::signature::Signer;
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey};

/// The curve of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// secp256r1
    P256,
    /// secp384r1
    P384,
    /// secp521r1
    P521,
}

impl Curve {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct TestSigner {
    /// The certificate.
    pub certificate_der: Vec<u8>,
    /// The certificate in PEM.
    pub certificate_pem: Vec<u8>,
    /// The key in PEM, as PKCS #8.
    pub key_pem: Vec<u8>,
    /// The key in PEM, as SEC 1 has it, after the curve's parameters: as `openssl ecparam -genkey` writes it.
    pub key_sec1_pem: Vec<u8>,
}

impl TestSigner {
    /// A signer whose certificate is valid from 2000 to 2100.
    pub fn new(curve: Curve) -> Self {
        Self::valid(curve, "20000101000000Z", "21000101000000Z")
    }

    /// A signer whose certificate is valid between these times.
    pub fn valid(curve: Curve, not_before: &str, not_after: &str) -> Self {
        Self::numbered(7, curve, not_before, not_after)
    }

    /// A signer with another key for each `number` from 1 to 127.
    ///
    /// # Panics
    /// If the number is 0.
    pub fn numbered(number: u8, curve: Curve, not_before: &str, not_after: &str) -> Self {
        Self::with_extensions(number, curve, [not_before, not_after], &[])
    }

    /// A TLS server of this name, whose certificate clients have as their root. It is valid from 2000 to 2100.
    ///
    /// # Panics
    /// If the number is 0.
    pub fn of_server(number: u8, name: &str) -> Self {
        let names = der::sequence(&[&der::value(0x82, name.as_bytes())]);
        let alternative_names = der::sequence(&[
            &der::object_identifier(&[0x55, 0x1d, 17]),
            &der::value(0x04, &names),
        ]);
        let extensions = der::value(0xa3, &der::sequence(&[&alternative_names]));
        let validity = ["20000101000000Z", "21000101000000Z"];
        Self::with_extensions(number, Curve::P256, validity, &extensions)
    }

    /// `extensions` is the last field of the certificate, or empty.
    fn with_extensions(number: u8, curve: Curve, validity: [&str; 2], extensions: &[u8]) -> Self {
        let [not_before, not_after] = validity;
        let key = Key::new(number, curve);
        let algorithm = der::sequence(&[&der::object_identifier(key.algorithm)]);
        let name = der::name(&[(6, "ZZ"), (10, "Example"), (3, &format!("signer {number}"))]);
        let to_be_signed = der::sequence(&[
            &der::value(0xa0, &der::integer(2)),
            &der::integer(number),
            &algorithm,
            &name,
            &der::sequence(&[&der::time(not_before), &der::time(not_after)]),
            &name,
            &key.public,
            extensions,
        ]);
        let signature = (key.sign)(&to_be_signed);
        let certificate_der = der::sequence(&[&to_be_signed, &algorithm, &der::bit_string(&signature)]);
        let parameters = pem("EC PARAMETERS", &der::object_identifier(&[0x2b, 0x81, 4, 0, 34]));
        Self {
            certificate_pem: pem("CERTIFICATE", &certificate_der),
            certificate_der,
            key_pem: pem("PRIVATE KEY", &key.pkcs8),
            key_sec1_pem: [parameters, pem("EC PRIVATE KEY", &key.sec1)].concat(),
        }
    }
}

/// From a message to its signature in DER.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// What a key is needed for.
struct Key {
    /// Object identifier of the signature's algorithm.
    algorithm: &'static [u8],
    public: Vec<u8>,
    pkcs8: Vec<u8>,
    sec1: Vec<u8>,
    sign: Sign,
}

impl Key {
    /// The private key is a number whose bytes are all `number`, but for the first of P-521, which has 521 bits.
    fn new(number: u8, curve: Curve) -> Self {
        match curve {
            Curve::P256 => {
                let secret = p256::SecretKey::from_slice(&[number; 32]).expect("below the order");
                let key = p256::ecdsa::SigningKey::from(&secret);
                Self {
                    algorithm: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
                    public: spki(key.verifying_key()),
                    pkcs8: pkcs8(&secret),
                    sec1: secret.to_sec1_der().expect("a key").to_vec(),
                    sign: Box::new(move |message| {
                        let signature: p256::ecdsa::Signature = key.sign(message);
                        signature.to_der().as_bytes().to_vec()
                    }),
                }
            }
            Curve::P384 => {
                let secret = p384::SecretKey::from_slice(&[number; 48]).expect("below the order");
                let key = p384::ecdsa::SigningKey::from(&secret);
                Self {
                    algorithm: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3],
                    public: spki(key.verifying_key()),
                    pkcs8: pkcs8(&secret),
                    sec1: secret.to_sec1_der().expect("a key").to_vec(),
                    sign: Box::new(move |message| {
                        let signature: p384::ecdsa::Signature = key.sign(message);
                        signature.to_der().as_bytes().to_vec()
                    }),
                }
            }
            Curve::P521 => {
                let mut scalar = [number; 66];
                scalar[0] = 0;
                let secret = p521::SecretKey::from_slice(&scalar).expect("below the order");
                let key = p521::ecdsa::SigningKey::from(&secret);
                Self {
                    algorithm: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4],
                    public: spki(key.verifying_key()),
                    pkcs8: pkcs8(&secret),
                    sec1: secret.to_sec1_der().expect("a key").to_vec(),
                    sign: Box::new(move |message| {
                        let signature: p521::ecdsa::Signature = key.sign(message);
                        signature.to_der().as_bytes().to_vec()
                    }),
                }
            }
        }
    }
}

fn spki(key: &impl EncodePublicKey) -> Vec<u8> {
    key.to_public_key_der().expect("a key").into_vec()
}

fn pkcs8(key: &impl EncodePrivateKey) -> Vec<u8> {
    key.to_pkcs8_der().expect("a key").as_bytes().to_vec()
}

/// A PEM text (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let mut text = format!("-----BEGIN {label}-----\n").into_bytes();
    for line in base64(der).chunks(64) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend(format!("-----END {label}-----\n").bytes());
    text
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::new();
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= group.len() { DIGITS[value] } else { b'=' });
        }
    }
    text
}
