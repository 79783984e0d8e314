//! Writes tar archives for tests, also such that no tool writes: any name, any bytes.

const BLOCK: usize = 512;

/// An archive being made. Everything is owned by root, with mode 0755 or 0644, unless said otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct TarWriter {
    bytes: Vec<u8>,
}

/// Fields of an entry that tests rarely set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extra<'a> {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: u32,
    /// Pax records: key and value.
    pub(crate) pax: &'a [(&'a str, &'a [u8])],
}

impl Extra<'_> {
    pub(crate) const fn mode(mode: u32) -> Self {
        Self {
            mode,
            owner: (0, 0),
            mtime: 0,
            pax: &[],
        }
    }
}

impl TarWriter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn directory(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(name, b'5', b"", b"", Extra::mode(0o755))
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, contents: impl AsRef<[u8]>) -> Self {
        self.entry(name, b'0', b"", contents.as_ref(), Extra::mode(0o644))
    }

    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(name, b'2', target.as_ref(), b"", Extra::mode(0o777))
    }

    pub(crate) fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.entry(name, b'1', target.as_ref(), b"", Extra::mode(0o644))
    }

    /// Any entry. Names and targets that do not fit into 100 bytes go into a pax header.
    pub(crate) fn entry(
        mut self,
        name: impl AsRef<[u8]>,
        flag: u8,
        target: &[u8],
        contents: &[u8],
        extra: Extra<'_>,
    ) -> Self {
        let name = name.as_ref();
        let mut records: Vec<(&str, &[u8])> = extra.pax.to_vec();
        if name.len() > 100 {
            records.push(("path", name));
        }
        if target.len() > 100 {
            records.push(("linkpath", target));
        }
        if !records.is_empty() {
            let records: Vec<u8> = records
                .iter()
                .flat_map(|(key, value)| pax_record(key, value))
                .collect();
            self.block(b"pax", b'x', b"", records.len(), Extra::mode(0o644));
            self.data(&records);
        }
        self.block(name, flag, target, contents.len(), extra);
        self.data(contents);
        self
    }

    /// A device: `flag` is `3` (character), `4` (block) or `6` (FIFO).
    pub(crate) fn device(mut self, name: &str, flag: u8, major: u32, minor: u32) -> Self {
        let at = self.bytes.len();
        self.block(name.as_bytes(), flag, b"", 0, Extra::mode(0o600));
        self.bytes[at + 329..at + 337].copy_from_slice(format!("{major:07o}\0").as_bytes());
        self.bytes[at + 337..at + 345].copy_from_slice(format!("{minor:07o}\0").as_bytes());
        seal(&mut self.bytes[at..at + BLOCK]);
        self
    }

    /// The archive with its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 2 * BLOCK]);
        self.bytes
    }

    fn block(&mut self, name: &[u8], flag: u8, target: &[u8], size: usize, extra: Extra<'_>) {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
        put(0, &name[..name.len().min(100)]);
        put(100, format!("{:07o}", extra.mode).as_bytes());
        put(108, format!("{:07o}", extra.owner.0).as_bytes());
        put(116, format!("{:07o}", extra.owner.1).as_bytes());
        put(124, format!("{size:011o}").as_bytes());
        put(136, format!("{:011o}", extra.mtime).as_bytes());
        put(156, &[flag]);
        put(157, &target[..target.len().min(100)]);
        put(257, b"ustar\x0000");
        seal(&mut block);
        self.bytes.extend(block);
    }

    fn data(&mut self, data: &[u8]) {
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }
}

/// Puts the checksum into a header block.
fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// `<length> <key>=<value>\n`, where the length counts its own digits.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}
