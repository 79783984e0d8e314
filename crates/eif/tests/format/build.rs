//! What a builder writes.

use std::error::Error;
use std::io::{self, BufWriter, Cursor, Read, Seek, SeekFrom, Write};

use crate::by_hand::{Eif, METADATA_JSON};
use eif::{Arch, Builder, EifError, Layout, Measurements, Metadata, WriteError, inspect};

fn metadata() -> Metadata {
    serde_json::from_str(METADATA_JSON).unwrap()
}

fn build(ramdisks: &[&[u8]]) -> (Vec<u8>, Measurements) {
    let mut out = Cursor::new(Vec::new());
    let mut builder = Builder::new(&mut out, Arch::X86_64, &mut &b"K"[..], b"C", &metadata()).unwrap();
    for ramdisk in ramdisks {
        builder.add_ramdisk(&mut &**ramdisk).unwrap();
    }
    let measurements = builder.finish().unwrap();
    (out.into_inner(), measurements)
}

#[test]
fn every_byte_is_as_in_a_file_put_together_by_hand() {
    let (bytes, measurements) = build(&[b"R1", b"R2"]);

    assert_eq!(bytes, Eif::v4().bytes);
    assert_eq!(
        measurements,
        inspect(&bytes[..], bytes.len() as u64).unwrap().measurements
    );
}

#[test]
fn ramdisks_can_be_written_as_they_are_made_through_a_buffer() {
    let mut file = tempfile::tempfile().unwrap();
    let out = BufWriter::new(&mut file);
    let mut builder = Builder::new(out, Arch::X86_64, &mut &b"K"[..], b"C", &metadata()).unwrap();
    let mut ramdisk = builder.ramdisk().unwrap();
    ramdisk.write_all(b"R").unwrap();
    ramdisk.flush().unwrap();
    ramdisk.write_all(b"1").unwrap();
    builder.ramdisk().unwrap().write_all(b"R2").unwrap();
    builder.finish().unwrap();

    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, Eif::v4().bytes);
}

#[test]
fn an_image_for_arm_has_its_flag() {
    let mut out = Cursor::new(Vec::new());
    Builder::new(&mut out, Arch::Aarch64, &mut &b"K"[..], b"C", &metadata())
        .unwrap()
        .finish()
        .unwrap();

    let bytes = out.into_inner();

    assert_eq!(bytes[6..8], [0, 1]);
    let inspection = inspect(&bytes[..], bytes.len() as u64).unwrap();
    assert_eq!(inspection.layout.header.arch, Arch::Aarch64);
    assert!(inspection.crc_ok);
}

#[test]
fn the_section_table_can_be_filled_but_not_more() {
    let ramdisks = [&b"r"[..]; 29];
    let (bytes, _) = build(&ramdisks);
    assert_eq!(
        Layout::read(&bytes[..], bytes.len() as u64)
            .unwrap()
            .ramdisks()
            .count(),
        29
    );

    let mut out = Cursor::new(Vec::new());
    let mut builder = Builder::new(&mut out, Arch::X86_64, &mut &b"K"[..], b"C", &metadata()).unwrap();
    for ramdisk in ramdisks {
        builder.add_ramdisk(&mut &*ramdisk).unwrap();
    }
    let error = builder.add_ramdisk(&mut &b"r"[..]).unwrap_err();
    assert!(matches!(error, WriteError::TooManyRamdisks), "{error}");
    assert!(error.to_string().contains("at most 29"), "{error}");
    builder.finish().unwrap();
    assert_eq!(out.into_inner(), bytes);
}

#[test]
fn metadata_that_no_reader_would_take_is_refused() {
    let mut metadata = metadata();
    metadata.custom_metadata = Some("x".repeat(1024 * 1024).into());

    let error = Builder::new(
        Cursor::new(Vec::new()),
        Arch::X86_64,
        &mut &b"K"[..],
        b"C",
        &metadata,
    )
    .unwrap_err();

    assert!(matches!(error, WriteError::MetadataTooLarge { .. }), "{error}");
}

#[test]
fn an_unfinished_file_is_no_eif() {
    let mut out = Cursor::new(Vec::new());
    let mut builder = Builder::new(&mut out, Arch::X86_64, &mut &b"K"[..], b"C", &metadata()).unwrap();
    builder.add_ramdisk(&mut &b"R1"[..]).unwrap();
    drop(builder);

    let bytes = out.into_inner();

    let error = Layout::read(&bytes[..], bytes.len() as u64).unwrap_err();
    assert!(
        matches!(error, EifError::BadMagic { found: [0, 0, 0, 0] }),
        "{error}"
    );
}

/// Gives a byte, is interrupted, then fails.
struct FailingSource(u32);

impl Read for FailingSource {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0 += 1;
        match self.0 {
            1 => {
                buf[0] = b'x';
                Ok(1)
            }
            2 => Err(io::ErrorKind::Interrupted.into()),
            _ => Err(io::Error::other("lost")),
        }
    }
}

/// A device with room for `0` bytes.
struct FullDevice(u64);

impl Write for FullDevice {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(buf.len() as u64)
            .ok_or(io::ErrorKind::StorageFull)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for FullDevice {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn a_source_that_fails_is_named() {
    let out = Cursor::new(Vec::new());
    let error = Builder::new(out, Arch::X86_64, &mut FailingSource(0), b"C", &metadata()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the kernel");
    assert_eq!(error.source().unwrap().to_string(), "lost");

    let out = Cursor::new(Vec::new());
    let mut builder = Builder::new(out, Arch::X86_64, &mut &b"K"[..], b"C", &metadata()).unwrap();
    let error = builder.add_ramdisk(&mut FailingSource(0)).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the ramdisk");
}

#[test]
fn an_output_that_fills_up_is_an_error_wherever_it_happens() {
    let data_bytes = 1 + 1 + METADATA_JSON.len() as u64 + 2;
    for room in 0..data_bytes + 4 * 12 + 548 {
        let written = Builder::new(FullDevice(room), Arch::X86_64, &mut &b"K"[..], b"C", &metadata())
            .and_then(|mut builder| builder.add_ramdisk(&mut &b"R1"[..]).map(|()| builder))
            .and_then(Builder::finish);
        let error = written.unwrap_err();
        assert!(matches!(error, WriteError::Output(_)), "{room}: {error}");
    }
}
