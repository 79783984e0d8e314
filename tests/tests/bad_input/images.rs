//! Files that are no image, damaged ones, and those whose parts are not what they should be.

use std::fs;
use std::time::SystemTime;

use eif::{FileCrc, Layout, Pcr, Section, SectionKind, SignatureSection};
use eif_signature::Signer;
use end_to_end_tests::{Finished, Host, Launch, World, eifs, parent};
use test_signer::{Curve, TestSigner};

/// run-enclave, in debug mode, of a file with these contents.
fn attempt_with(contents: &[u8]) -> Finished {
    let eif = eifs::path("bad.eif");
    fs::write(&eif, contents).expect("write the image");
    let finished = Launch::of(&eif).in_debug_mode().attempt(&Host::of_the_parent());
    fs::remove_file(&eif).expect("remove the image");
    finished
}

/// describe-eif of a file with these contents.
fn describe(contents: &[u8]) -> Finished {
    let eif = eifs::path("bad.eif");
    fs::write(&eif, contents).expect("write the image");
    let finished = Host::of_the_parent().cli(&["describe-eif", "--eif-path", &eif.to_string_lossy()]);
    fs::remove_file(&eif).expect("remove the image");
    finished
}

fn hello_bytes() -> Vec<u8> {
    fs::read(parent::hello_eif()).expect("read hello.eif")
}

#[test]
fn a_file_that_is_no_eif_is_e35() {
    let _world = World::enter();
    let texts: [&[u8]; 4] = [b"", b"x", b"#!/bin/sh\necho I am a script\n", &[0; 4096]];
    for contents in texts {
        attempt_with(contents).failed_to_run("E35", &["EIF"]);
        describe(contents).failed_with(35, "E35", &["bad.eif"]);
    }
    let kernel = fs::read(parent::blob("bzImage")).expect("read the kernel");
    attempt_with(&kernel).failed_to_run("E35", &["EIF"]);
}

#[test]
fn a_file_that_is_not_there_or_no_file_is_named() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let missing = Launch::of("/no/such.eif").attempt(&host);
    missing.failed_to_run("E19", &["/no/such.eif", "No such file or directory"]);
    assert!(missing.stderr.contains("Failed connections: 1"), "{missing:#?}");

    let directory = Launch::of("/root").attempt(&host);
    assert_eq!(
        (directory.code(), directory.stdout.as_str()),
        (Some(39), ""),
        "{directory:#?}"
    );
    assert!(directory.stderr.contains("/root"), "{directory:#?}");
}

#[test]
fn an_eif_truncated_at_any_section_boundary_is_e35() {
    let _world = World::enter();
    let whole = hello_bytes();
    let layout = Layout::read(whole.as_slice(), whole.len() as u64).expect("hello.eif is well-formed");
    let mut cuts = vec![eif::HEADER_LEN as u64 - 1, eif::HEADER_LEN as u64];
    for section in &layout.sections {
        let (start, data, end) = (section.header_offset(), section.offset, section.end());
        cuts.extend([start, start + 1, data, data + section.size / 2, end - 1, end]);
    }
    cuts.sort_unstable();
    cuts.dedup();
    assert_eq!(
        cuts.pop(),
        Some(whole.len() as u64),
        "the last boundary is the end of the file"
    );

    for cut in cuts {
        let part = &whole[..usize::try_from(cut).expect("an offset")];
        attempt_with(part).failed_to_run("E35", &["EIF"]);
        describe(part).failed_with(35, "E35", &["bad.eif"]);
    }
}

#[test]
fn an_eif_with_a_wrong_crc_does_not_run_and_describe_eif_says_so() {
    let _world = World::enter();
    let whole = hello_bytes();
    let layout = Layout::read(whole.as_slice(), whole.len() as u64).expect("hello.eif is well-formed");
    for section in &layout.sections {
        let mut damaged = whole.clone();
        // The last byte: of JSON, a ramdisk's padding, a word of the command line; none of it stops a parser before.
        let last = usize::try_from(section.end() - 1).expect("an offset");
        damaged[last] ^= 1;
        attempt_with(&damaged).failed_to_run("E35", &["CRC"]);
    }
    let mut other_crc = whole.clone();
    other_crc[eif::HEADER_LEN - 1] ^= 1;
    attempt_with(&other_crc).failed_to_run("E35", &["CRC"]);
    let described = describe(&other_crc).succeeded();
    assert_eq!(described.json()["CheckCRC"], false);
}

#[test]
fn an_eif_for_another_processor_is_e35() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let eif = eifs::for_aarch64();

    Launch::of(&eif)
        .attempt(&host)
        .failed_to_run("E35", &["aarch64", "x86_64"]);

    let described = host.cli(&["describe-eif", "--eif-path", &eif.to_string_lossy()]);
    assert_eq!(described.succeeded().json()["CheckCRC"], true);
}

/// `eif` with the CRC that it should have.
fn with_crc(mut eif: Vec<u8>) -> Vec<u8> {
    let (header, sections) = eif.split_first_chunk().expect("a header");
    let mut crc = FileCrc::new(header);
    crc.update(sections);
    eif[eif::HEADER_LEN - 4..eif::HEADER_LEN].copy_from_slice(&crc.finish().to_be_bytes());
    eif
}

/// `eif` with one more section, a signature of these bytes. Positions are those of the header's fields.
fn with_signature(mut eif: Vec<u8>, signature: &[u8]) -> Vec<u8> {
    let number = usize::from(eif[0x1b]);
    eif[0x1b] += 1;
    let section = Section {
        kind: SectionKind::Signature,
        offset: (eif.len() + eif::SECTION_HEADER_LEN) as u64,
        size: signature.len() as u64,
    };
    eif[0x1c + 8 * number..][..8].copy_from_slice(&section.header_offset().to_be_bytes());
    eif[0x11c + 8 * number..][..8].copy_from_slice(&section.size.to_be_bytes());
    eif.extend(section.header_bytes());
    eif.extend_from_slice(signature);
    with_crc(eif)
}

#[test]
fn malformed_metadata_or_a_malformed_signature_is_e35_for_whoever_reads_it() {
    let _world = World::enter();
    let whole = hello_bytes();
    let layout = Layout::read(whole.as_slice(), whole.len() as u64).expect("hello.eif is well-formed");
    let metadata = layout.metadata().expect("metadata").offset;
    let mut no_json = whole.clone();
    no_json[usize::try_from(metadata).expect("an offset")] = b'<';

    for (eif, word) in [
        (with_crc(no_json), "metadata"),
        (with_signature(whole.clone(), b"\x80"), "signature"),
        (with_signature(whole, b"no CBOR"), "signature"),
    ] {
        attempt_with(&eif).failed_to_run("E35", &[word]);
        describe(&eif).failed_with(35, "E35", &[word]);
    }
}

/// A signature of an image with this PCR0, by a certificate that is valid for long.
fn signature_of(pcr0: &Pcr) -> SignatureSection {
    let signer = TestSigner::new(Curve::P384);
    let signer = Signer::new(signer.certificate_pem, &signer.key_pem, SystemTime::now());
    signer.expect("a signer").sign(pcr0).expect("a signature")
}

#[test]
fn an_eif_whose_signature_does_not_hold_is_e59() {
    let _world = World::enter();
    let whole = hello_bytes();
    let pcr0 = eif::inspect(whole.as_slice(), whole.len() as u64)
        .expect("hello.eif is well-formed")
        .measurements
        .pcr0;
    let of_another_image = signature_of(&Pcr::ZERO);
    // Of the same key, so that nothing but the dates is wrong.
    let expired = SignatureSection {
        certificate_pem: TestSigner::valid(Curve::P384, "20000101000000Z", "20010101000000Z").certificate_pem,
        ..signature_of(&pcr0)
    };
    let mut invalid = signature_of(&pcr0);
    *invalid.cose_sign1.last_mut().expect("a signature") ^= 1;

    for (signature, words, holds) in [
        (of_another_image, "for another image", false),
        (invalid, "not made with the certificate's key", false),
        (expired, "has expired", true),
    ] {
        let eif = with_signature(whole.clone(), &signature.encode());
        attempt_with(&eif).failed_to_run("E59", &[words]);
        let described = describe(&eif).succeeded();
        assert_eq!(described.json()["SignatureCheck"], holds, "{words}");
    }
}

#[test]
fn a_kernel_that_is_no_kernel_is_e35() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let real = fs::read(parent::blob("bzImage")).expect("read the kernel");
    let text = b"this is no kernel ".repeat(100);
    let contents: [(&str, &[u8]); 4] = [
        ("text.eif", &text),
        ("empty.eif", b""),
        ("boot-sector.eif", &real[..512]),
        ("setup-code.eif", &real[..1024]),
    ];
    for (name, kernel) in contents {
        let eif = eifs::with_kernel(name, kernel);
        Launch::of(&eif).attempt(&host).failed_to_run("E35", &["kernel"]);
    }
}
