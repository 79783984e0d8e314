//! A secret, encrypted to a public key: HPKE (RFC 9180), base mode, with X25519, HKDF-SHA256 and ChaCha20Poly1305.
//!
//! ```text
//! sealed    encapsulated key (32) ‖ ciphertext (as long as the secret) ‖ tag (16)
//! info      "enclaved example attest, version 1"
//! aad       the nonce
//! receipt   HMAC-SHA256(key: what HPKE exports for "receipt", 32 bytes; message: the secret)
//! ```

use hmac::{Hmac, KeyInit, Mac};
use hpke::aead::{AeadCtxR, AeadCtxS, ChaCha20Poly1305};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, HpkeError, Kem, OpModeR, OpModeS, Serializable, setup_receiver, setup_sender};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Nonce, Secret};

/// Bytes of a public key, and of an encapsulated one.
pub const PUBLIC_KEY_LEN: usize = 32;
/// Bytes by which a sealed secret is longer than the secret.
pub const OVERHEAD: usize = PUBLIC_KEY_LEN + 16;
/// Bytes of a receipt.
pub const RECEIPT_LEN: usize = 32;

const INFO: &[u8] = b"enclaved example attest, version 1";
const RECEIPT: &[u8] = b"receipt";

/// An enclave's key pair. The private key is cleared from memory at its end.
pub struct KeyPair {
    private: <X25519HkdfSha256 as Kem>::PrivateKey,
    public: [u8; PUBLIC_KEY_LEN],
}

impl KeyPair {
    /// A new one, from the operating system's random numbers.
    ///
    /// # Panics
    /// If there are none, which Linux does not let happen once it has booted.
    pub fn generate() -> Self {
        let (private, public) = X25519HkdfSha256::gen_keypair();
        Self {
            private,
            public: public.to_bytes().into(),
        }
    }

    /// The public key, as the document carries it.
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.public
    }

    /// Decrypts a secret that was sealed to this key for this nonce, and makes the receipt for it.
    pub fn open(&self, sealed: &[u8], nonce: &Nonce) -> Result<(Secret, [u8; RECEIPT_LEN]), NotSealed> {
        let (encapsulated, ciphertext) = sealed.split_at_checked(PUBLIC_KEY_LEN).ok_or(NotSealed)?;
        let open = || -> Result<_, HpkeError> {
            let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)?;
            let mut context: AeadCtxR<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256> =
                setup_receiver(&OpModeR::Base, &self.private, &encapsulated, INFO)?;
            let secret = context.open(ciphertext, nonce)?;
            Ok((secret, context))
        };
        let (secret, context) = open().map_err(|_| NotSealed)?;
        let secret = Secret::new(secret).map_err(|_| NotSealed)?;
        let receipt = receipt(&secret, |key| context.export(RECEIPT, key)).map_err(|_| NotSealed)?;
        Ok((secret, receipt.finalize().into_bytes().into()))
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Encrypts `secret` to a public key for one conversation.
///
/// # Panics
/// Like [`KeyPair::generate`].
pub fn seal(
    public_key: &[u8],
    nonce: &Nonce,
    secret: &Secret,
) -> Result<(Vec<u8>, ExpectedReceipt), NoPublicKey> {
    let seal = || -> Result<_, HpkeError> {
        let public_key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public_key)?;
        let (encapsulated, mut context): (_, AeadCtxS<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>) =
            setup_sender(&OpModeS::Base, &public_key, INFO)?;
        let ciphertext = context.seal(secret.bytes(), nonce)?;
        let receipt = receipt(secret, |key| context.export(RECEIPT, key))?;
        Ok((
            [encapsulated.to_bytes().as_slice(), &ciphertext].concat(),
            receipt,
        ))
    };
    let (sealed, receipt) = seal().map_err(|_| NoPublicKey)?;
    Ok((sealed, ExpectedReceipt(receipt)))
}

/// `export` fills in the key.
fn receipt(
    secret: &Secret,
    export: impl FnOnce(&mut [u8]) -> Result<(), HpkeError>,
) -> Result<Hmac<Sha256>, HpkeError> {
    let mut key = Zeroizing::new([0; RECEIPT_LEN]);
    export(key.as_mut_slice())?;
    let mut receipt = Hmac::<Sha256>::new_from_slice(key.as_slice())
        .map_err(|_| HpkeError::IncorrectInputLength(RECEIPT_LEN, key.len()))?;
    receipt.update(secret.bytes());
    Ok(receipt)
}

/// The receipt that who decrypts the secret can make.
#[derive(Debug)]
pub struct ExpectedReceipt(Hmac<Sha256>);

impl ExpectedReceipt {
    /// Whether `receipt` is that one; in constant time.
    pub fn is(self, receipt: &[u8]) -> bool {
        self.0.verify_slice(receipt).is_ok()
    }
}

/// Not sealed to this key for this nonce, or damaged. It cannot be told which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the encrypted secret is not for this enclave's key and this conversation")]
pub struct NotSealed;

/// Bytes that are no X25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key is no X25519 key of {PUBLIC_KEY_LEN} bytes")]
pub struct NoPublicKey;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = [0x5a; 32];

    fn secret() -> Secret {
        Secret::new(b"the secret".to_vec()).unwrap()
    }

    /// The private key 01 02 … 20.
    fn known_keys() -> KeyPair {
        let private: Vec<u8> = (1..=32).collect();
        let private = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&private).unwrap();
        let public = X25519HkdfSha256::sk_to_pk(&private).to_bytes().into();
        KeyPair { private, public }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digits).collect()
    }

    /// Sealed, and its receipt made, by pyhpke 0.6.5 and Python's hmac.
    #[test]
    fn another_implementation_is_understood() {
        let keys = known_keys();
        assert_eq!(
            keys.public_key().to_vec(),
            bytes("07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c")
        );
        let sealed = bytes(
            "5fd47633b5e43fca7bad1bfbe424feacb175d9d4d4a30f166dbd30636f0b446b\
             b611d2b24da6d056ee6cb221f100d8b521eafb1e90fe540131af",
        );
        let (secret, receipt) = keys.open(&sealed, &NONCE).unwrap();
        assert_eq!(secret.bytes(), b"the secret");
        assert_eq!(
            receipt.to_vec(),
            bytes("4b250bf9f2cf548353c228368bb5d65d2978a04c16b500c62c58a3371982a805")
        );
    }

    #[test]
    fn the_receipt_is_that_of_this_secret_and_this_message() {
        let keys = KeyPair::generate();
        let (sealed, expected) = seal(keys.public_key(), &NONCE, &secret()).unwrap();
        let (again, other) = seal(keys.public_key(), &NONCE, &secret()).unwrap();
        assert_ne!(sealed, again);
        let (_, receipt) = keys.open(&sealed, &NONCE).unwrap();
        assert!(!other.is(&receipt));
        assert!(expected.is(&receipt));
        let (_, expected) = seal(keys.public_key(), &NONCE, &secret()).unwrap();
        assert!(!expected.is(&receipt[..31]), "a part of one is none");
    }

    #[test]
    fn other_keys_other_nonces_and_every_other_bit_are_refused() {
        let keys = KeyPair::generate();
        let (sealed, _) = seal(keys.public_key(), &NONCE, &secret()).unwrap();
        assert_eq!(sealed.len(), OVERHEAD + 10);
        assert_eq!(KeyPair::generate().open(&sealed, &NONCE).unwrap_err(), NotSealed);
        assert_eq!(keys.open(&sealed, &[0x5b; 32]).unwrap_err(), NotSealed);
        for bit in 0..sealed.len() * 8 {
            // X25519 ignores the highest bit of a coordinate, but the key schedule does not.
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.open(&damaged, &NONCE).unwrap_err(), NotSealed, "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(keys.open(&sealed[..length], &NONCE).is_err(), "{length} bytes");
        }
        assert!(
            keys.open(&[0; OVERHEAD + 10], &NONCE).is_err(),
            "a point of low order"
        );
    }

    #[test]
    fn only_a_public_key_is_sealed_to() {
        for wrong in [&[][..], &[9; 31], &[9; 33], &[0; 32]] {
            assert_eq!(
                seal(wrong, &NONCE, &secret()).unwrap_err(),
                NoPublicKey,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn keys_are_new_and_private_ones_are_not_printed() {
        let (one, other) = (KeyPair::generate(), KeyPair::generate());
        assert_ne!(one.public_key(), other.public_key());
        assert_eq!(
            format!("{one:?}"),
            format!("KeyPair {{ public: {:?}, .. }}", one.public_key())
        );
    }

    proptest! {
        #[test]
        fn any_secret_arrives(bytes in proptest::collection::vec(any::<u8>(), 1..=crate::MAX_SECRET), nonce: Nonce) {
            let keys = KeyPair::generate();
            let secret = Secret::new(bytes).unwrap();
            let (sealed, expected) = seal(keys.public_key(), &nonce, &secret).unwrap();
            let (opened, receipt) = keys.open(&sealed, &nonce).unwrap();
            prop_assert_eq!(opened.bytes(), secret.bytes());
            prop_assert!(expected.is(&receipt));
        }
    }
}
