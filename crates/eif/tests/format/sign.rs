//! Images that get a signature, another one, or lose theirs. What is in a signature does not matter here.

use std::io::Cursor;

use crate::by_hand::{CMDLINE, Eif, KERNEL, METADATA, METADATA_JSON, RAMDISK, SIGNATURE, SIGNER_PEM};
use eif::{Builder, EifError, MAX_SIGNATURE, SignatureSection, WriteError, inspect};

type Output = Cursor<Vec<u8>>;

fn signature(cose: &[u8]) -> SignatureSection {
    SignatureSection {
        certificate_pem: SIGNER_PEM.to_vec(),
        cose_sign1: cose.to_vec(),
    }
}

fn copy(image: &[u8]) -> Result<Builder<Output>, WriteError> {
    Builder::unsigned_copy(image, image.len() as u64, Cursor::new(Vec::new()))
}

/// `image` without a signature, or with this one.
fn with_signature(image: &[u8], signature: Option<&SignatureSection>) -> Result<Vec<u8>, WriteError> {
    let mut out = Cursor::new(Vec::new());
    let mut builder = Builder::unsigned_copy(image, image.len() as u64, &mut out)?;
    let before = builder.measurements();
    if let Some(signature) = signature {
        builder.add_signature(signature)?;
    }
    assert_eq!(builder.finish()?, before, "a signature is not measured");
    Ok(out.into_inner())
}

#[test]
fn a_signature_is_added_replaced_and_removed_and_every_byte_is_as_by_hand() {
    let unsigned = Eif::v4().bytes;
    let (one, other) = (Eif::signed(b"one").bytes, Eif::signed(b"another, longer").bytes);

    for image in [&unsigned, &one, &other] {
        assert!(with_signature(image, None).unwrap() == unsigned);
        assert!(with_signature(image, Some(&signature(b"one"))).unwrap() == one);
        assert!(with_signature(image, Some(&signature(b"another, longer"))).unwrap() == other);
    }
}

#[test]
fn the_stale_size_that_awss_tools_leave_in_the_table_is_put_right() {
    let mut stale = Eif::signed(b"one");
    let table_entry = 5;
    let offset = stale.offsets[table_entry] as u64;
    stale.set_table(table_entry, offset, 1);
    stale.fix_crc();

    let signed = with_signature(&stale.bytes, Some(&signature(b"one"))).unwrap();

    assert!(signed == Eif::signed(b"one").bytes);
}

#[test]
fn a_signature_before_the_ramdisks_moves_to_the_end() {
    let section = signature(b"one").encode();
    let metadata = METADATA_JSON.as_bytes();
    let image = Eif::new(
        4,
        &[
            (KERNEL, b"K"),
            (SIGNATURE, &section),
            (CMDLINE, b"C"),
            (METADATA, metadata),
            (RAMDISK, b"R1"),
            (RAMDISK, b"R2"),
        ],
    );

    let signed = with_signature(&image.bytes, Some(&signature(b"one"))).unwrap();

    assert!(signed == Eif::signed(b"one").bytes);
}

#[test]
fn what_the_header_says_besides_stays_and_what_follows_the_image_goes() {
    let mut image = Eif::new(3, &[(KERNEL, b"K"), (CMDLINE, b"C"), (RAMDISK, b"R1")]);
    image.set(6, &1_u16.to_be_bytes());
    image.set(8, &77_u64.to_be_bytes());
    image.set(0x18, &[1, 2]);
    image.set(0x21c, &[3, 4, 5, 6]);
    image.fix_crc();
    let header = image.bytes[..0x1a].to_vec();
    image.bytes.extend(b"trailing");

    let signed = with_signature(&image.bytes, Some(&signature(b"one"))).unwrap();

    assert_eq!(signed[..0x1a], header);
    assert_eq!(signed[0x21c..0x220], [3, 4, 5, 6]);
    let inspection = inspect(&signed[..], signed.len() as u64).unwrap();
    assert!(inspection.crc_ok);
    assert_eq!(inspection.layout.trailing_bytes(), 0);
    assert_eq!(inspection.signature, Some(signature(b"one")));
}

#[test]
fn a_damaged_image_is_not_copied() {
    for image in [Eif::v4(), Eif::signed(b"one")] {
        let mut damaged = image.bytes;
        *damaged.last_mut().unwrap() ^= 1;

        assert!(matches!(
            copy(&damaged),
            Err(WriteError::Source(EifError::CrcMismatch { .. }))
        ));
    }
    assert!(matches!(
        copy(b"junk"),
        Err(WriteError::Source(EifError::TooShort { .. }))
    ));
}

#[test]
fn version_2_has_no_signatures() {
    let image = Eif::new(2, &[(KERNEL, b"K"), (CMDLINE, b"C"), (RAMDISK, b"R1")]);

    let error = with_signature(&image.bytes, Some(&signature(b"one"))).unwrap_err();

    assert!(matches!(
        error,
        WriteError::VersionWithoutSignature { version: 2 }
    ));
    assert!(with_signature(&image.bytes, None).unwrap() == image.bytes);
}

#[test]
fn there_is_one_signature_and_room_for_it() {
    let mut builder = copy(&Eif::v4().bytes).unwrap();
    builder.add_signature(&signature(b"one")).unwrap();
    assert!(matches!(
        builder.add_signature(&signature(b"two")),
        Err(WriteError::SecondSignature)
    ));

    let ramdisks = |count: usize| {
        let mut sections = vec![(KERNEL, &b"K"[..]), (CMDLINE, b"C")];
        sections.extend(vec![(RAMDISK, &b"R"[..]); count]);
        Eif::new(3, &sections).bytes
    };
    assert!(with_signature(&ramdisks(29), Some(&signature(b"one"))).is_ok());
    assert!(matches!(
        with_signature(&ramdisks(30), Some(&signature(b"one"))),
        Err(WriteError::NoRoomForSignature)
    ));
}

#[test]
fn a_signature_section_has_a_limit() {
    let base = signature(b"").encode().len();
    // One byte of CBOR for each of these, and two more for the longer head of the array.
    let fits = vec![0; usize::try_from(MAX_SIGNATURE).unwrap() - base - 2];
    let too_many = [&fits[..], &[0]].concat();

    let signed = with_signature(&Eif::v4().bytes, Some(&signature(&fits))).unwrap();

    let inspection = inspect(&signed[..], signed.len() as u64).unwrap();
    assert_eq!(inspection.layout.signature().unwrap().size, MAX_SIGNATURE);
    assert!(matches!(
        with_signature(&Eif::v4().bytes, Some(&signature(&too_many))),
        Err(WriteError::SignatureTooLarge { size }) if size as u64 == MAX_SIGNATURE + 1
    ));
}
