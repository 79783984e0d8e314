//! Both sides of the conversation, over sockets and over streams of any bytes, with a platform whose word can be chosen.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

mod platform;
mod program;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use attest::enclave::{ReceiveError, receive_secret};
use attest::frame::{DOCUMENT, FrameError, NONCE, RECEIPT, SEALED};
use attest::parent::{MAX_AGE, SendError, Trust, send_secret};
use attest::sealing::{KeyPair, seal};
use attest::{Nonce, Secret};
use attestation::{AttestationContent, AttestationDocument, PCR_LEN, Timestamp};
use platform::{NOW, PCR0, Platform};
use proptest::prelude::*;

fn secret() -> Secret {
    Secret::new(b"only for you".to_vec()).unwrap()
}

/// How each side saw a conversation end.
struct Ends {
    parent: Result<AttestationDocument, SendError>,
    enclave: Result<Secret, ReceiveError<String>>,
}

/// A conversation at the time `now` of one who trusts `trust` with an enclave for which `document` vouches.
fn conversation(
    trust: &Trust,
    now: Timestamp,
    document: impl Fn(&Nonce, &[u8]) -> Result<Vec<u8>, String> + Sync,
) -> Ends {
    let keys = KeyPair::generate();
    let (mut parents, mut enclaves) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        let enclave = scope.spawn(|| {
            let end = receive_secret(&mut enclaves, &keys, |nonce| document(nonce, keys.public_key()));
            drop(enclaves);
            end
        });
        let parent = send_secret(&mut parents, trust, || now, &secret());
        drop(parents);
        Ends {
            parent,
            enclave: enclave.join().unwrap(),
        }
    })
}

fn trust(platform: &Platform) -> Trust {
    Trust {
        root: platform.root(),
        pcr0: PCR0,
    }
}

/// Asserts that nothing came after the document, and returns the name of the check that it did not pass.
fn refused(ends: Ends) -> &'static str {
    let enclave = ends.enclave.unwrap_err();
    assert!(
        matches!(
            enclave,
            ReceiveError::Frame(FrameError::Closed("the encrypted secret"))
        ),
        "{enclave}"
    );
    let parent = ends.parent.unwrap_err();
    assert!(parent.is_refusal(), "{parent}");
    match parent {
        SendError::NotVerified(error) => error.check(),
        SendError::NoPublicKey(_) => "public key",
        other => unreachable!("no refusal: {other}"),
    }
}

#[test]
fn the_enclave_reads_the_secret() {
    let platform = Platform::new();
    let document = |nonce: &Nonce, key: &[u8]| Ok(platform.document(&platform.content(nonce, key)));

    let ends = conversation(&trust(&platform), NOW, document);

    assert_eq!(ends.enclave.unwrap().bytes(), secret().bytes());
    assert_eq!(
        ends.parent.unwrap().content().module_id,
        "i-0000000000000000-enc0000000000000001"
    );
}

#[test]
fn each_check_that_fails_keeps_the_secret_here() {
    let platform = Platform::new();
    let trusted = trust(&platform);
    let end_of = |change: fn(&mut AttestationContent)| {
        refused(conversation(&trusted, NOW, |nonce, key| {
            let mut content = platform.content(nonce, key);
            change(&mut content);
            Ok(platform.document(&content))
        }))
    };
    assert_eq!(end_of(|content| content.pcrs = [(0, [7; PCR_LEN])].into()), "pcr");
    assert_eq!(
        end_of(|content| content.pcrs = [(0, [0; PCR_LEN])].into()),
        "debug"
    );
    assert_eq!(end_of(|content| content.nonce = Some(vec![7; 32])), "nonce");
    assert_eq!(end_of(|content| content.nonce = None), "nonce");
    assert_eq!(
        end_of(|content| content.timestamp = NOW.before(MAX_AGE + Duration::from_secs(1))),
        "age"
    );
    assert_eq!(end_of(|content| content.public_key = None), "public key");
    assert_eq!(
        end_of(|content| content.public_key = Some(vec![9; 31])),
        "public key"
    );
    assert_eq!(
        end_of(|content| content.public_key = Some(vec![0; 32])),
        "public key"
    );
}

#[test]
fn an_enclave_in_debug_mode_is_refused_even_if_zeros_are_expected() {
    let platform = Platform::new();
    let zeros = Trust {
        pcr0: [0; PCR_LEN],
        ..trust(&platform)
    };
    let ends = conversation(&zeros, NOW, |nonce, key| {
        let mut content = platform.content(nonce, key);
        content.pcrs = [(0, [0; PCR_LEN])].into();
        Ok(platform.document(&content))
    });
    assert_eq!(refused(ends), "debug");
}

#[test]
fn other_platforms_and_other_times_are_refused() {
    let (platform, other) = (Platform::new(), Platform::new());
    let document = |nonce: &Nonce, key: &[u8]| Ok(platform.document(&platform.content(nonce, key)));
    assert_eq!(refused(conversation(&trust(&other), NOW, document)), "root");
    let tomorrow = NOW.after(Duration::from_hours(24));
    assert_eq!(
        refused(conversation(&trust(&platform), tomorrow, document)),
        "validity"
    );
}

#[test]
fn a_key_that_somebody_put_in_on_the_way_is_refused() {
    let platform = Platform::new();
    let ends = conversation(&trust(&platform), NOW, |nonce, key| {
        let mut document = platform.document(&platform.content(nonce, key));
        let at = document
            .windows(key.len())
            .position(|window| window == key)
            .unwrap();
        document[at..at + key.len()].copy_from_slice(KeyPair::generate().public_key());
        Ok(document)
    });
    assert_eq!(refused(ends), "signature");
}

#[test]
fn without_a_document_there_is_no_more() {
    let ends = conversation(&trust(&Platform::new()), NOW, |_, _| Err("out of order".into()));
    assert!(matches!(ends.enclave.unwrap_err(), ReceiveError::NoDocument(text) if text == "out of order"));
    let parent = ends.parent.unwrap_err();
    assert!(!parent.is_refusal());
    assert_eq!(
        parent.to_string(),
        "the other side closed the connection in place of the attestation document"
    );
}

/// An enclave that has the document but not the private key cannot say that it has read the secret.
#[test]
fn a_receipt_that_is_made_up_is_found_out() {
    let platform = Platform::new();
    let (mut parents, mut enclaves) = UnixStream::pair().unwrap();
    let parent = thread::scope(|scope| {
        scope.spawn(|| {
            let nonce = NONCE.receive(&mut enclaves).unwrap().try_into().unwrap();
            let content = platform.content(&nonce, KeyPair::generate().public_key());
            DOCUMENT
                .send(&mut enclaves, &platform.document(&content))
                .unwrap();
            SEALED.receive(&mut enclaves).unwrap();
            RECEIPT.send(&mut enclaves, &[7; 32]).unwrap();
        });
        send_secret(&mut parents, &trust(&platform), || NOW, &secret())
    });
    assert!(matches!(parent, Err(SendError::Receipt)), "{parent:?}");
}

/// A stream whose other side has said all it will say. Keeps what is written to it.
struct Recorded<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Recorded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl Write for Recorded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an enclave with these keys, whose documents are the word `document`, does with these bytes.
fn enclave_hears(keys: &KeyPair, input: &[u8]) -> (Result<Secret, ReceiveError<String>>, Vec<u8>) {
    let mut stream = Recorded {
        input,
        output: Vec::new(),
    };
    let end = receive_secret(&mut stream, keys, |_| Ok(b"document".to_vec()));
    (end, stream.output)
}

/// The parent's messages with this nonce and this sealed secret.
fn messages(nonce: &Nonce, sealed: &[u8]) -> Vec<u8> {
    let mut input = Vec::new();
    NONCE.send(&mut input, nonce).unwrap();
    SEALED.send(&mut input, sealed).unwrap();
    input
}

/// The enclave's first answer in [`enclave_hears`].
const FIRST_ANSWER: &[u8] = b"\0\x08document";

#[test]
fn a_recorded_secret_cannot_be_played_into_another_conversation() {
    let keys = KeyPair::generate();
    let (sealed, _) = seal(keys.public_key(), &[1; 32], &secret()).unwrap();
    let (end, answers) = enclave_hears(&keys, &messages(&[1; 32], &sealed));
    assert_eq!(end.unwrap().bytes(), secret().bytes());
    assert_eq!(answers.len(), FIRST_ANSWER.len() + 2 + 32);

    let (end, answers) = enclave_hears(&keys, &messages(&[2; 32], &sealed));
    assert!(matches!(end, Err(ReceiveError::NotSealed(_))), "{end:?}");
    assert_eq!(answers, FIRST_ANSWER, "and there is no receipt");
}

#[test]
fn the_enclave_asks_for_no_document_without_a_whole_nonce() {
    let keys = KeyPair::generate();
    for input in [
        &b""[..],
        b"\0",
        b"\0\x1f",
        b"\0\x21",
        b"\xff\xff",
        &[[0, 32].as_slice(), &[1; 31]].concat(),
    ] {
        let (end, answers) = enclave_hears(&keys, input);
        assert!(matches!(end, Err(ReceiveError::Frame(_))), "{input:?}: {end:?}");
        assert_eq!(answers, b"", "{input:?}");
    }
}

proptest! {
    /// Whatever a parent sends, it gets a document at most: a receipt takes a secret that was sealed to the enclave's key.
    #[test]
    fn any_bytes_get_no_receipt(
        input in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            (any::<Nonce>(), proptest::collection::vec(any::<u8>(), 49..300))
                .prop_map(|(nonce, sealed)| messages(&nonce, &sealed)),
        ],
    ) {
        let (end, answers) = enclave_hears(&KeyPair::generate(), &input);
        prop_assert!(end.is_err());
        prop_assert!(answers.is_empty() || answers == FIRST_ANSWER);
    }

    /// Whatever an enclave sends, it gets the nonce and nothing more.
    #[test]
    fn any_bytes_get_no_secret(
        input in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..300),
            proptest::collection::vec(any::<u8>(), 1..300).prop_map(|document| {
                let mut input = Vec::new();
                DOCUMENT.send(&mut input, &document).unwrap();
                input
            }),
        ],
    ) {
        let trust = Trust { root: ROOT.with(Clone::clone), pcr0: PCR0 };
        let mut stream = Recorded { input: &input, output: Vec::new() };
        prop_assert!(send_secret(&mut stream, &trust, || NOW, &secret()).is_err());
        prop_assert_eq!(stream.output.len(), 2 + 32);
    }
}

thread_local! {
    /// Made once for all cases of a property.
    static ROOT: attestation::TrustAnchor = Platform::new().root();
}
