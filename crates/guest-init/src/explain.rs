//! Why a program cannot be executed, in words.
//!
//! The kernel answers "no such file" when the interpreter that a program names is missing, although the program is there,
//! and "exec format error" for everything it cannot read. So the program's own file is looked at: a script names its
//! interpreter after `#!`, an ELF program names its dynamic loader in the `PT_INTERP` segment.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How much of a script's first line the kernel reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE_LIMIT: usize = 256;
/// The longest loader name that is read from an ELF file (the kernel's limit is `PATH_MAX`).
const LOADER_NAME_LIMIT: u64 = 4096;
/// Program headers that are looked at; linkers write about a dozen.
const SEGMENT_LIMIT: u16 = 256;

/// The machine this init was built for (`e_machine`).
const THIS_MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

/// What kind of program a file is.
#[derive(Debug, PartialEq, Eq)]
enum Format {
    /// A text whose first line is `#!interpreter`.
    Script(PathBuf),
    /// An ELF file of this machine, with its dynamic loader if it has one.
    Elf(Option<PathBuf>),
    /// An ELF file of another machine (`e_machine`) or word size.
    ForeignElf(u16),
    /// Nothing that the kernel can execute.
    Unknown,
}

/// Explains why executing `program` failed with `error`.
pub(crate) fn failed_exec(program: &Path, error: &io::Error) -> String {
    let shown = program.display();
    let metadata = match program.metadata() {
        Ok(metadata) => metadata,
        Err(missing) => return format!("cannot run {shown}: {missing}"),
    };
    if metadata.is_dir() {
        return format!("cannot run {shown}: it is a directory");
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return format!(
            "cannot run {shown}: the file is not executable (mode {:04o})",
            metadata.permissions().mode() & 0o7777
        );
    }
    match File::open(program).and_then(|file| format_of(&file)) {
        Ok(Format::Script(interpreter)) if !exists(&interpreter) => {
            format!(
                "cannot run {shown}: its first line asks for the interpreter {}, which is not in the image",
                interpreter.display()
            )
        }
        Ok(Format::Elf(Some(loader))) if !exists(&loader) => format!(
            "cannot run {shown}: it is dynamically linked and its loader {} is not in the image",
            loader.display()
        ),
        Ok(Format::ForeignElf(machine)) => {
            format!(
                "cannot run {shown}: it is a program for {}, not for this machine",
                Machine(machine)
            )
        }
        Ok(Format::Unknown) => {
            format!("cannot run {shown}: it is neither an ELF program nor a script that begins with #!")
        }
        _ => format!("cannot run {shown}: {error}"),
    }
}

fn exists(path: &Path) -> bool {
    path.metadata().is_ok()
}

/// Reads as much of the file as tells what it is.
fn format_of(file: &File) -> io::Result<Format> {
    let head = read_up_to(file, 0, FIRST_LINE_LIMIT)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words = line
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|word| !word.is_empty());
        return Ok(words.next().map_or(Format::Unknown, |word| {
            Format::Script(OsStr::from_bytes(word).into())
        }));
    }
    match ElfHeader::parse(&head) {
        None => Ok(Format::Unknown),
        Some(ElfHeader {
            class_64: true,
            machine: THIS_MACHINE,
            segments,
        }) => segments.loader(file).map(Format::Elf),
        Some(foreign) => Ok(Format::ForeignElf(foreign.machine)),
    }
}

/// The parts of an ELF header that lead to the loader's name. Only little-endian files are understood: the machines of
/// enclaves are little-endian.
struct ElfHeader {
    class_64: bool,
    machine: u16,
    segments: SegmentTable,
}

impl ElfHeader {
    fn parse(head: &[u8]) -> Option<Self> {
        let ident = head.strip_prefix(b"\x7fELF")?;
        let class_64 = *ident.first()? == 2;
        let machine = u16_at(head, 18)?;
        let segments = SegmentTable {
            offset: u64_at(head, 32)?,
            entry_size: u16_at(head, 54)?,
            count: u16_at(head, 56)?.min(SEGMENT_LIMIT),
        };
        Some(Self {
            class_64,
            machine,
            segments,
        })
    }
}

/// Where the program headers of a 64-bit ELF file are.
struct SegmentTable {
    offset: u64,
    entry_size: u16,
    count: u16,
}

impl SegmentTable {
    /// The content of the `PT_INTERP` segment.
    fn loader(&self, file: &File) -> io::Result<Option<PathBuf>> {
        const PT_INTERP: u32 = 3;
        for index in 0..self.count {
            let Some(position) = self
                .offset
                .checked_add(u64::from(index) * u64::from(self.entry_size))
            else {
                break;
            };
            let segment = read_up_to(file, position, 56)?;
            if u32_at(&segment, 0) != Some(PT_INTERP) {
                continue;
            }
            let (Some(offset), Some(size)) = (u64_at(&segment, 8), u64_at(&segment, 32)) else {
                break;
            };
            let size = usize::try_from(size.min(LOADER_NAME_LIMIT)).unwrap_or_default();
            let mut name = read_up_to(file, offset, size)?;
            name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
            return Ok(Some(PathBuf::from(std::ffi::OsString::from_vec(name))));
        }
        Ok(None)
    }
}

/// Name of an `e_machine` value.
struct Machine(u16);

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            3 => f.write_str("32-bit x86"),
            40 => f.write_str("32-bit ARM"),
            62 => f.write_str("x86-64"),
            183 => f.write_str("aarch64"),
            243 => f.write_str("RISC-V"),
            other => write!(f, "ELF machine {other}"),
        }
    }
}

/// Reads at a position, up to a length or to the end of the file.
fn read_up_to(file: &File, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, position.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes_at(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// An ELF file with one `PT_LOAD` and one `PT_INTERP` segment.
    fn elf(class: u8, machine: u16, loader: &str) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..5].copy_from_slice(&[0x7f, b'E', b'L', b'F', class]);
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&2u16.to_le_bytes());
        file[64..68].copy_from_slice(&1u32.to_le_bytes());
        let interp = 64 + 56;
        file[interp..interp + 4].copy_from_slice(&3u32.to_le_bytes());
        file[interp + 8..interp + 16].copy_from_slice(&176u64.to_le_bytes());
        file[interp + 32..interp + 40].copy_from_slice(&(loader.len() as u64 + 1).to_le_bytes());
        file.extend_from_slice(loader.as_bytes());
        file.push(0);
        file
    }

    fn explained(content: &[u8], mode: u32, errno: i32) -> String {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("app");
        fs::write(&program, content).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        let text = failed_exec(&program, &io::Error::from_raw_os_error(errno));
        text.replace(&program.display().to_string(), "/app")
    }

    #[test]
    fn each_reason_is_said() {
        let cases: [(&[u8], u32, i32, &str); 7] = [
            (
                b"#! /no/bash -e\necho hi\n",
                0o755,
                libc::ENOENT,
                "cannot run /app: its first line asks for the interpreter /no/bash, which is not in the image",
            ),
            (
                &elf(2, THIS_MACHINE, "/lib64/no-loader.so"),
                0o755,
                libc::ENOENT,
                "cannot run /app: it is dynamically linked and its loader /lib64/no-loader.so is not in the image",
            ),
            (
                &elf(2, 243, "/x"),
                0o755,
                libc::ENOEXEC,
                "cannot run /app: it is a program for RISC-V, not for this machine",
            ),
            (
                &elf(1, 3, "/x"),
                0o755,
                libc::ENOEXEC,
                "cannot run /app: it is a program for 32-bit x86, not for this machine",
            ),
            (
                b"echo hi\n",
                0o755,
                libc::ENOEXEC,
                "cannot run /app: it is neither an ELF program nor a script that begins with #!",
            ),
            (
                b"#!/bin/sh\n",
                0o644,
                libc::EACCES,
                "cannot run /app: the file is not executable (mode 0644)",
            ),
            (
                b"#!/bin/sh\n",
                0o755,
                libc::ENOMEM,
                "cannot run /app: Cannot allocate memory (os error 12)",
            ),
        ];
        for (content, mode, errno, expected) in cases {
            assert_eq!(explained(content, mode, errno), expected);
        }
    }

    #[test]
    fn a_directory_and_a_missing_file_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let error = io::Error::from_raw_os_error(libc::EACCES);
        assert!(failed_exec(directory.path(), &error).ends_with(": it is a directory"));
        let gone = directory.path().join("gone");
        assert!(failed_exec(&gone, &error).ends_with(": No such file or directory (os error 2)"));
    }

    #[test]
    fn real_programs_are_recognised() {
        let this = File::open("/proc/self/exe").unwrap();
        assert!(matches!(format_of(&this).unwrap(), Format::Elf(_)));
    }

    /// Whatever the file holds, there is a sentence about it.
    fn is_explained(content: &[u8]) -> bool {
        explained(content, 0o755, libc::ENOEXEC).starts_with("cannot run /app: ")
    }

    proptest! {
        #[test]
        fn any_file_is_explained(content in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(is_explained(&content));
        }

        #[test]
        fn a_damaged_elf_file_is_explained(
            position in 0usize..180, byte in any::<u8>(), length in 0usize..190
        ) {
            let mut content = elf(2, THIS_MACHINE, "/lib/loader");
            content[position] = byte;
            content.truncate(length);
            prop_assert!(is_explained(&content));
        }
    }
}
