//! The enclave that is booted: a kernel, a quiet command line, and an initramfs with a process 1 of a few instructions.
//!
//! The process writes one byte to [`MARK_PORT`], the first thing it does that the parent can see, and then waits for
//! ever. It links no library and prints nothing, so what is measured is the kernel's boot and not a program's.

use std::{
    fs::File,
    io::Cursor,
    path::{Path, PathBuf},
};

use bench::at;
use eif::{Arch, Builder, Measurements};
use image::cpio::{Attributes, Device, Writer};

use crate::error::Error;

/// The port of Bochs's debug console: no device of a PC is there, so neither kernel nor VMM touches it.
pub(crate) const MARK_PORT: u8 = 0xe9;

/// The command line of AWS's x86-64 blobs (nitro-cli 1.5.0, `blobs/x86_64/cmdline`), and no messages: each byte of them
/// is an exit to the VMM.
const KERNEL_ARGUMENTS: &str = "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux \
                                i8042.nopnp i8042.dumbkbd random.trust_cpu=on quiet";

/// Where the program is linked to.
const LOAD_ADDRESS: u64 = 0x40_0000;

/// ELF header and one program header.
const HEADERS: u64 = 64 + 56;

/// `ioperm(MARK_PORT, 1, 1)`, `out MARK_PORT, 'U'`, `pause()` for ever. System calls by their numbers in
/// `arch/x86/entry/syscalls/syscall_64.tbl`.
const CODE: [u8; 35] = [
    0xb8, 173, 0, 0, 0, // mov eax, ioperm
    0xbf, MARK_PORT, 0, 0, 0, // mov edi, MARK_PORT
    0xbe, 1, 0, 0, 0, // mov esi, 1
    0xba, 1, 0, 0, 0, // mov edx, 1
    0x0f, 0x05, // syscall
    0xb0, b'U', // mov al, 'U'
    0xe6, MARK_PORT, // out MARK_PORT, al
    0xb8, 34, 0, 0, 0, // 1: mov eax, pause
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp 1b
];

/// An EIF around a kernel.
#[derive(Debug)]
pub(crate) struct Image {
    /// The kernel's file name.
    pub(crate) kernel: String,
    /// The EIF.
    pub(crate) path: PathBuf,
    /// Bytes of the EIF.
    pub(crate) size: u64,
    /// What it should be measured as.
    pub(crate) measurements: Measurements,
}

/// Writes `<kernel>.eif` to `directory`.
pub(crate) fn build(kernel: &Path, directory: &Path) -> Result<Image, Error> {
    let name = kernel
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let path = directory.join(format!("{name}.eif"));
    let mut source = File::open(kernel).map_err(at("open", kernel))?;
    let output = File::create(&path).map_err(at("create", &path))?;
    let mut builder = Builder::new(
        output,
        Arch::X86_64,
        &mut source,
        KERNEL_ARGUMENTS.as_bytes(),
        &bench::metadata("boot-bench", env!("CARGO_PKG_VERSION")),
    )?;
    builder.add_ramdisk(&mut Cursor::new(initramfs()?))?;
    let measurements = builder.finish()?;
    let size = path.metadata().map_err(at("read", &path))?.len();
    Ok(Image {
        kernel: name,
        path,
        size,
        measurements,
    })
}

/// `/init` and the console that the kernel opens for it; without that it would print a warning.
fn initramfs() -> Result<Vec<u8>, image::cpio::Error> {
    let mut cpio = Writer::new(Vec::new());
    cpio.directory("dev", Attributes::new(0o755))?;
    let console = Device::Character { major: 5, minor: 1 };
    cpio.device("dev/console", Attributes::new(0o600), console)?;
    cpio.file("init", Attributes::new(0o755), program())?;
    cpio.finish()
}

/// The static ELF executable around [`CODE`], as `elf(5)` describes it.
fn program() -> Vec<u8> {
    let size = HEADERS + CODE.len() as u64;
    let mut elf = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little-endian
    elf.extend(2_u16.to_le_bytes()); // ET_EXEC
    elf.extend(62_u16.to_le_bytes()); // EM_X86_64
    elf.extend(1_u32.to_le_bytes()); // version
    elf.extend((LOAD_ADDRESS + HEADERS).to_le_bytes()); // entry
    elf.extend(64_u64.to_le_bytes()); // offset of the program headers
    elf.extend(0_u64.to_le_bytes()); // offset of the section headers
    elf.extend(0_u32.to_le_bytes()); // flags
    for field in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(field.to_le_bytes()); // sizes and numbers of headers
    }
    elf.extend(1_u32.to_le_bytes()); // PT_LOAD
    elf.extend(5_u32.to_le_bytes()); // readable, executable
    for field in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 4096] {
        elf.extend(u64::to_le_bytes(field)); // offset, addresses, sizes, alignment
    }
    elf.extend(CODE);
    elf
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    #[test]
    fn the_program_runs_up_to_the_mark_that_this_host_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("init");
        fs::write(&path, program()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();

        // Without the right to the port, which root gives up here, the write is a protection fault.
        let status = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--bounding-set=-sys_rawio", "--inh-caps=-sys_rawio"]);
            command.arg(&path).status()
        } else {
            Command::new(&path).status()
        };

        let status = status.unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(11),
            "{status}"
        );
    }

    #[test]
    fn the_image_is_what_its_measurements_say() {
        let directory = tempfile::tempdir().unwrap();
        let kernel = directory.path().join("bzImage");
        fs::write(&kernel, [7; 5000]).unwrap();

        let image = build(&kernel, directory.path()).unwrap();

        let bytes = fs::read(&image.path).unwrap();
        let inspection = eif::inspect(&bytes[..], image.size).unwrap();
        assert!(inspection.crc_ok);
        assert_eq!(inspection.measurements, image.measurements);
        assert_eq!(inspection.layout.kernel().size, 5000);
        assert_eq!(image.kernel, "bzImage");
    }
}
