//! Which images run, as the daemon decides by what a VMM says of their signatures.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use api::vmm::{Event, ImageSignature};
use api::{ErrorCode, Measurements, Reply};
use eif::Pcr;
use eif_signature::Signer;
use enclaved::launcher::Said;
use test_signer::{Curve, TestSigner};

use crate::support::{Parent, measurements, request};

/// The signature of an image with this PCR0, and its measurements.
fn signed(pcr0: &Pcr) -> (ImageSignature, Measurements) {
    let TestSigner {
        certificate_pem,
        certificate_der,
        key_pem,
        ..
    } = TestSigner::new(Curve::P256);
    let signer = Signer::new(certificate_pem, &key_pem, SystemTime::now()).unwrap();
    let measurements = Measurements {
        pcr0: pcr0.to_string(),
        pcr8: Some(signer.certificate().pcr8().to_string()),
        ..measurements()
    };
    let signature = ImageSignature {
        certificate: certificate_der,
        cose_sign1: signer.sign(pcr0).unwrap().cose_sign1,
    };
    (signature, measurements)
}

#[tokio::test]
async fn an_image_whose_signature_holds_is_accepted_before_it_starts() {
    let (signature, measurements) = signed(&Pcr::of_data(b"the image"));
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(request("signed", 2));
    let guest = parent.guest().await;
    guest.say(Event::Signed(signature));
    guest.say(Event::Measured(measurements.clone()));
    guest.say(Event::Started);
    assert_eq!(guest.beat(0xb7).await, [0xb7]);

    assert!(matches!(client.last_reply().await, Reply::EnclaveStarted(_)));
    assert!(guest.accepted.load(Ordering::SeqCst));
    assert_eq!(parent.describe().await[0].measurements, measurements);
}

#[tokio::test]
async fn an_unsigned_image_needs_no_acceptance() {
    let mut parent = Parent::start();
    let (guest, _) = parent.boot(request("unsigned", 2)).await;

    assert!(!guest.accepted.load(Ordering::SeqCst));
}

#[tokio::test]
async fn an_image_whose_signature_does_not_hold_is_e59_and_leaves_nothing() {
    let (_, measurements) = signed(&Pcr::of_data(b"the image"));
    let (signature_of_another, _) = signed(&Pcr::of_data(b"another image"));
    for debug_mode in [false, true] {
        let mut parent = Parent::start();
        let mut client = parent.client();
        client.run(api::RunEnclave {
            debug_mode,
            ..request("forged", 2)
        });
        let mut guest = parent.guest().await;
        guest.say(Event::Signed(signature_of_another.clone()));
        guest.say(Event::Measured(measurements.clone()));
        guest.killed().await;

        let failure = client.failure().await;

        assert_eq!(failure.code, ErrorCode::EIFSignatureChecker);
        assert!(failure.message.contains("for another image"), "{failure}");
        assert!(!guest.accepted.load(Ordering::SeqCst));
        parent.assert_nothing_is_held().await;
    }
}

#[tokio::test]
async fn a_signature_comes_once_and_with_its_pcr8() {
    let (signature, signed_measurements) = signed(&Pcr::of_data(b"the image"));
    let signed_event = || Said::Event(Event::Signed(signature.clone()));
    for script in [
        vec![signed_event(), signed_event()],
        vec![signed_event(), Said::Event(Event::Measured(measurements()))],
        vec![Said::Event(Event::Measured(signed_measurements.clone()))],
        vec![Said::Event(Event::Measured(measurements())), signed_event()],
        vec![signed_event(), Said::Event(Event::Started)],
    ] {
        let mut parent = Parent::start();
        let mut client = parent.client();
        client.run(request("odd", 2));
        let mut guest = parent.guest().await;
        for said in script {
            guest.utter(said);
        }
        guest.killed().await;

        let failure = client.failure().await;

        assert_eq!(failure.code, ErrorCode::EnclaveBootFailure);
        assert!(failure.message.contains("broke the protocol"), "{failure}");
    }
}
