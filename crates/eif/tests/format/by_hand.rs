//! EIFs put together byte by byte, without the code under test, so that every field can be wrong.

pub(crate) const KERNEL: u16 = 1;
pub(crate) const CMDLINE: u16 = 2;
pub(crate) const RAMDISK: u16 = 3;
pub(crate) const SIGNATURE: u16 = 4;
pub(crate) const METADATA: u16 = 5;

/// A certificate made with `openssl req -new -x509` for a P-384 key.
pub(crate) const SIGNER_PEM: &[u8] = include_bytes!("../data/signer.pem");

/// Its PCR8, computed with Python's hashlib over `openssl x509 -outform DER`.
pub(crate) const SIGNER_PCR8: &str =
    "425fd4638911772d017c4e20c07e734bc2e6afccff67fb9c017f7f4a896aae2a215a9deb0f2f7da45a5db9eff515734c";

pub(crate) const METADATA_JSON: &str = concat!(
    r#"{"ImageName":"hello","ImageVersion":"1.0","BuildMetadata":{"#,
    r#""BuildTime":"2024-01-01T00:00:00+00:00","BuildTool":"test","BuildToolVersion":"0.1.0","#,
    r#""OperatingSystem":"Linux","KernelVersion":"6.12.0"},"DockerInfo":null,"CustomMetadata":null}"#
);

/// A file made of these sections, one after the other. Change the bytes afterwards, with [`Eif::set`], to break it.
#[derive(Clone, Debug)]
pub(crate) struct Eif {
    pub(crate) bytes: Vec<u8>,
    /// File offset of each section header.
    pub(crate) offsets: Vec<usize>,
}

impl Eif {
    pub(crate) fn new(version: u16, sections: &[(u16, &[u8])]) -> Self {
        let mut eif = Self {
            bytes: vec![0; 548],
            offsets: Vec::new(),
        };
        eif.set(0, b".eif");
        eif.set(4, &version.to_be_bytes());
        eif.set(8, &(1_u64 << 30).to_be_bytes());
        eif.set(16, &2_u64.to_be_bytes());
        eif.set(0x1a, &u16::try_from(sections.len()).unwrap().to_be_bytes());
        for (index, (section_type, data)) in sections.iter().enumerate() {
            let offset = eif.bytes.len();
            let size = (data.len() as u64).to_be_bytes();
            eif.offsets.push(offset);
            if index < 32 {
                eif.set(0x1c + 8 * index, &(offset as u64).to_be_bytes());
                eif.set(0x11c + 8 * index, &size);
            }
            eif.bytes.extend(section_type.to_be_bytes());
            eif.bytes.extend([0, 0]);
            eif.bytes.extend(size);
            eif.bytes.extend(*data);
        }
        eif.fix_crc();
        eif
    }

    /// The smallest complete file of version 4 with two ramdisks; its measurements are known answers.
    pub(crate) fn v4() -> Self {
        let metadata = METADATA_JSON.as_bytes();
        Self::new(
            4,
            &[
                (KERNEL, b"K"),
                (CMDLINE, b"C"),
                (METADATA, metadata),
                (RAMDISK, b"R1"),
                (RAMDISK, b"R2"),
            ],
        )
    }

    /// The same, signed by [`SIGNER_PEM`] with a signature of `cose`.
    pub(crate) fn signed(cose: &[u8]) -> Self {
        let signature = signature_section(SIGNER_PEM, cose);
        let metadata = METADATA_JSON.as_bytes();
        Self::new(
            4,
            &[
                (KERNEL, b"K"),
                (CMDLINE, b"C"),
                (METADATA, metadata),
                (RAMDISK, b"R1"),
                (RAMDISK, b"R2"),
                (SIGNATURE, &signature),
            ],
        )
    }

    pub(crate) fn set(&mut self, offset: usize, value: &[u8]) {
        self.bytes[offset..offset + value.len()].copy_from_slice(value);
    }

    /// Entry `index` of the header's section table.
    pub(crate) fn set_table(&mut self, index: usize, offset: u64, size: u64) {
        self.set(0x1c + 8 * index, &offset.to_be_bytes());
        self.set(0x11c + 8 * index, &size.to_be_bytes());
    }

    pub(crate) fn fix_crc(&mut self) {
        let mut covered = self.bytes.clone();
        covered.drain(0x220..0x224);
        let crc = crc32(&covered).to_be_bytes();
        self.set(0x220, &crc);
    }
}

/// A signature section as AWS's tools write it.
pub(crate) fn signature_section(certificate: &[u8], cose: &[u8]) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Growing(Vec::new()));
    encoder.array(1).unwrap().map(2).unwrap();
    for (key, bytes) in [("signing_certificate", certificate), ("signature", cose)] {
        encoder.str(key).unwrap().array(bytes.len() as u64).unwrap();
        for byte in bytes {
            encoder.u8(*byte).unwrap();
        }
    }
    encoder.into_writer().0
}

/// What minicbor has for vectors with a feature that the product is built without: tests are built as the product is.
struct Growing(Vec<u8>);

impl minicbor::encode::Write for Growing {
    type Error = std::convert::Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// CRC-32/ISO-HDLC, bit by bit.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}
