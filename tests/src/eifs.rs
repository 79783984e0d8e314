//! EIFs for the suites: those of guest applications, and those that no builder would make.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use eif::{Arch, BuildMetadata, Builder, Metadata};
use image::cpio::{Attributes, Device, Writer};

use crate::{ContainerImage, parent};

/// Where the EIFs of a suite are; made on first use.
///
/// # Panics
/// If it cannot be made.
pub fn path(name: &str) -> PathBuf {
    let directory = Path::new("/tmp/eifs");
    fs::create_dir_all(directory).expect("create the directory for EIFs");
    directory.join(name)
}

/// An EIF that starts the application `name` with these arguments. One that was built before is used again.
///
/// # Panics
/// If it cannot be built.
pub fn of_application(name: &str, arguments: &[&str]) -> PathBuf {
    let eif = path(&format!("{}.eif", [&[name], arguments].concat().join("-")));
    if !eif.exists() {
        ContainerImage::of_application(name, arguments).build(&eif);
    }
    eif
}

/// An EIF without enclaved's init: the application `name` is the kernel's `/init`, alone in the ramdisk. When it ends, the
/// kernel panics and resets the machine within a second.
///
/// # Panics
/// If it cannot be written.
pub fn with_init(name: &str) -> PathBuf {
    let eif = path(&format!("init-{name}.eif"));
    if !eif.exists() {
        let kernel = fs::read(parent::blob("bzImage")).expect("read the kernel");
        write(
            &eif,
            Arch::X86_64,
            &kernel,
            &cmdline_that_resets_soon(),
            &ramdisk_of(name),
        );
    }
    eif
}

/// An EIF whose kernel section holds these bytes.
///
/// # Panics
/// If it cannot be written.
pub fn with_kernel(name: &str, kernel: &[u8]) -> PathBuf {
    let eif = path(name);
    write(
        &eif,
        Arch::X86_64,
        kernel,
        &cmdline_that_resets_soon(),
        &ramdisk_of("idle"),
    );
    eif
}

/// A well-formed EIF for another processor than this one's.
///
/// # Panics
/// If it cannot be written.
pub fn for_aarch64() -> PathBuf {
    let eif = path("aarch64.eif");
    write(
        &eif,
        Arch::Aarch64,
        b"an arm64 Image",
        "console=ttyAMA0",
        &ramdisk_of("idle"),
    );
    eif
}

/// An EIF whose kernel is this 64-bit code, in an ELF file, with paging on and the first GiB mapped one to one.
///
/// # Panics
/// If it cannot be written.
pub fn with_code(name: &str, code: &[u8]) -> PathBuf {
    with_kernel(name, &elf(code))
}

/// An EIF whose kernel is the one of the crate `hostile-guest`, with these words on its command line.
///
/// # Panics
/// If it cannot be written.
pub fn of_hostile_guest(name: &str, orders: &str) -> PathBuf {
    let eif = path(&format!("hostile-{name}.eif"));
    let kernel = fs::read(parent::guest_application("hostile-guest")).expect("read the kernel");
    write(&eif, Arch::X86_64, &kernel, orders, b"no archive");
    eif
}

/// The smallest ELF executable for x86-64: headers, and one segment that is loaded at 16 MiB and entered at its start.
fn elf(code: &[u8]) -> Vec<u8> {
    const ADDRESS: u64 = 16 << 20;
    const HEADERS: u64 = 64 + 56;
    let code_len = code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for (value, size) in [
        // File header: type EXEC, x86-64, version, entry, offsets of the program and section headers, flags, sizes.
        (2, 2),
        (62, 2),
        (1, 4),
        (ADDRESS, 8),
        (64, 8),
        (0, 8),
        (0, 4),
        (64, 2),
        (56, 2),
        (1, 2),
        (0, 2),
        (0, 2),
        (0, 2),
        // Program header: LOAD, RWX, offset, virtual and physical address, sizes in file and memory, alignment.
        (1, 4),
        (7, 4),
        (HEADERS, 8),
        (ADDRESS, 8),
        (ADDRESS, 8),
        (code_len, 8),
        (code_len, 8),
        (8, 8),
    ] {
        let bytes = u64::to_le_bytes(value);
        file.extend_from_slice(&bytes[..size]);
    }
    file.extend_from_slice(code);
    file
}

/// The measured command line of every enclave, but `panic=1` where AWS has 30 seconds.
fn cmdline_that_resets_soon() -> String {
    let text = fs::read_to_string(parent::blob("cmdline")).expect("read the command line");
    let words = text
        .split_ascii_whitespace()
        .filter(|word| !word.starts_with("panic="));
    words.chain(["panic=1"]).collect::<Vec<_>>().join(" ")
}

fn ramdisk_of(application: &str) -> Vec<u8> {
    let program = fs::read(parent::guest_application(application)).expect("read the application");
    let mut archive = Writer::new(Vec::new());
    archive
        .directory("dev", Attributes::new(0o755))
        .expect("write the ramdisk");
    let console = Device::Character { major: 5, minor: 1 };
    archive
        .device("dev/console", Attributes::new(0o600), console)
        .expect("write the ramdisk");
    archive
        .file("init", Attributes::new(0o755), &program)
        .expect("write the ramdisk");
    archive.finish().expect("write the ramdisk")
}

fn write(path: &Path, arch: Arch, mut kernel: &[u8], cmdline: &str, mut ramdisk: &[u8]) {
    let metadata = Metadata {
        image_name: "end-to-end".into(),
        image_version: "1".into(),
        build_metadata: BuildMetadata {
            build_time: "2024-01-01T00:00:00+00:00".into(),
            build_tool: "end-to-end-tests".into(),
            build_tool_version: "1".into(),
            operating_system: "Linux".into(),
            kernel_version: "6.12".into(),
        },
        docker_info: None,
        custom_metadata: None,
    };
    let file = File::create(path).expect("create the EIF");
    let mut builder =
        Builder::new(file, arch, &mut kernel, cmdline.as_bytes(), &metadata).expect("write the EIF");
    builder.add_ramdisk(&mut ramdisk).expect("write the EIF");
    builder.finish().expect("write the EIF");
}
