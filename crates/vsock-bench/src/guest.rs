//! The guest of all three VMMs: one kernel, one initramfs, one command line but for the CID of the parent.

use std::{
    fs::{self, File},
    io::Cursor,
    path::{Path, PathBuf},
};

use eif::{Arch, Builder};
use image::cpio::{Attributes, Device, Writer};
use vsock_bench::PARENT_CID;

use bench::at;

use crate::error::Error;

/// The command line of AWS's x86-64 blobs (nitro-cli 1.5.0, `blobs/x86_64/cmdline`), and no messages: each byte of them
/// is an exit to the VMM.
const KERNEL_ARGUMENTS: &str = "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux \
                                i8042.nopnp i8042.dumbkbd random.trust_cpu=on quiet";

/// The files that a VMM starts the guest from.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
    /// Both in one file, for a parent with CID 3.
    pub(crate) eif: PathBuf,
}

/// The kernel's command line for a guest whose parent has this CID.
pub(crate) fn arguments(parent_cid: u32) -> String {
    format!("{KERNEL_ARGUMENTS} {PARENT_CID}={parent_cid}")
}

/// Writes initramfs and EIF to `directory`.
pub(crate) fn build(kernel: &Path, program: &Path, directory: &Path) -> Result<Guest, Error> {
    let init = fs::read(program).map_err(at("read", program))?;
    let archive = archive(&init)?;
    let initramfs = directory.join("initramfs");
    fs::write(&initramfs, &archive).map_err(at("write", &initramfs))?;

    let eif = directory.join("guest.eif");
    let output = File::create(&eif).map_err(at("create", &eif))?;
    let mut source = File::open(kernel).map_err(at("open", kernel))?;
    let command_line = arguments(3);
    let metadata = bench::metadata("vsock-bench", env!("CARGO_PKG_VERSION"));
    let mut builder = Builder::new(
        output,
        Arch::X86_64,
        &mut source,
        command_line.as_bytes(),
        &metadata,
    )?;
    builder.add_ramdisk(&mut Cursor::new(archive))?;
    builder.finish()?;
    Ok(Guest {
        kernel: kernel.to_owned(),
        initramfs,
        eif,
    })
}

/// `/init` and the console that the kernel opens for it.
fn archive(init: &[u8]) -> Result<Vec<u8>, image::cpio::Error> {
    let mut cpio = Writer::new(Vec::new());
    cpio.directory("dev", Attributes::new(0o755))?;
    let console = Device::Character { major: 5, minor: 1 };
    cpio.device("dev/console", Attributes::new(0o600), console)?;
    cpio.file("init", Attributes::new(0o755), init)?;
    cpio.finish()
}
