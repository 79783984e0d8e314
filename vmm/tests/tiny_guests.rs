//! The VMM process as the daemon sees it, with guests of a few integer instructions.
//!
//! Each test builds an EIF around an ELF kernel of hand-made code, starts `enclave-vmm` with a launch message, and
//! watches its events and console. Such guests run even on a KVM that cannot boot Linux. Memory is a plain memfd, so no
//! hugepages are needed. They are ignored unless asked for, because a machine need not have `/dev/kvm`: `cargo xtask test`
//! runs them where it can be opened, `cargo test -p enclave-vmm -- --ignored` anywhere.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where something unexpected happens"
)]

use std::{
    fs::File,
    io::{Cursor, IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use api::{
    ErrorCode,
    sandbox::Layer,
    vmm::{Event, ExitReason, ImageSignature, Instruction, LaunchSpec, MAX_MESSAGE, MemoryFile},
};
use eif::{Arch, BuildMetadata, Builder, MAX_SIGNATURE, Metadata, Pcr, SignatureSection};
use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
        SocketFlags, SocketType, bind, listen, recv, send, sendmsg, socket_with, socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
    pipe::{PipeFlags, pipe_with},
};

const MEMORY: u64 = 64 << 20;
const LOAD_ADDRESS: u64 = 0x20_0000;

/// Guest code that writes `text` to the serial port.
fn print(text: &str) -> Vec<u8> {
    let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for byte in text.bytes() {
        code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
    }
    code
}

/// Guest code that asks the keyboard controller for a reset, and then spins.
const RESET: [u8; 6] = [0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe];

/// An ELF executable with `code` at [`LOAD_ADDRESS`].
fn elf(code: &[u8]) -> Vec<u8> {
    const CODE_OFFSET: u64 = 120;
    let mut image = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    image.extend(2_u16.to_le_bytes()); // ET_EXEC
    image.extend(62_u16.to_le_bytes()); // EM_X86_64
    image.extend(1_u32.to_le_bytes());
    image.extend(LOAD_ADDRESS.to_le_bytes()); // entry
    image.extend(64_u64.to_le_bytes()); // program headers
    image.extend([0; 12]); // section headers, flags
    for field in [64_u16, 56, 1, 0, 0, 0] {
        image.extend(field.to_le_bytes());
    }
    image.extend(1_u32.to_le_bytes()); // PT_LOAD
    image.extend(7_u32.to_le_bytes());
    let length = code.len() as u64;
    for field in [CODE_OFFSET, LOAD_ADDRESS, LOAD_ADDRESS, length, length, 4096] {
        image.extend(field.to_le_bytes());
    }
    image.extend(code);
    image
}

fn eif_of(kernel: &[u8], cmdline: &str, ramdisks: &[&[u8]]) -> Vec<u8> {
    let mut image = Cursor::new(Vec::new());
    let kernel = &mut Cursor::new(kernel);
    let mut builder =
        Builder::new(&mut image, Arch::X86_64, kernel, cmdline.as_bytes(), &metadata()).unwrap();
    for ramdisk in ramdisks {
        builder.add_ramdisk(&mut Cursor::new(ramdisk)).unwrap();
    }
    builder.finish().unwrap();
    image.into_inner()
}

/// `image` with a signature section as large as there may be, of bytes that JSON makes the most of, and what is in it.
fn signed(image: &[u8]) -> (Vec<u8>, SignatureSection) {
    let mut section = SignatureSection {
        certificate_pem: b"-----BEGIN CERTIFICATE-----\nMAMCAQc=\n-----END CERTIFICATE-----\n".to_vec(),
        cose_sign1: Vec::new(),
    };
    // Each of these takes one byte of CBOR; two more are for the length of the array.
    let room = usize::try_from(MAX_SIGNATURE).unwrap() - section.encode().len() - 2;
    section.cose_sign1 = vec![23; room];
    let mut out = Cursor::new(Vec::new());
    let mut builder = Builder::unsigned_copy(image, image.len() as u64, &mut out).unwrap();
    builder.add_signature(&section).unwrap();
    builder.finish().unwrap();
    (out.into_inner(), section)
}

fn metadata() -> Metadata {
    let text = || "test".to_owned();
    Metadata {
        image_name: text(),
        image_version: text(),
        build_metadata: BuildMetadata {
            build_time: "1970-01-01T00:00:00Z".to_owned(),
            build_tool: text(),
            build_tool_version: text(),
            operating_system: text(),
            kernel_version: text(),
        },
        docker_info: None,
        custom_metadata: None,
    }
}

fn file_of(name: &str, size: u64) -> File {
    let file = memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file.into()
}

fn nsm_listener(path: &Path) -> OwnedFd {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&socket, 1).unwrap();
    socket
}

/// A VMM process and the daemon's ends of what it was given.
struct Vmm {
    process: Child,
    control: OwnedFd,
    console: File,
    _directory: tempfile::TempDir,
}

impl Vmm {
    /// Starts a VMM for `image` with `vcpus` vCPUs and `memory` bytes in debug mode.
    fn launch(image: &[u8], vcpus: usize, memory: u64) -> Self {
        Self::launch_with(image, vcpus, memory, Stdio::inherit())
    }

    /// The same with `stderr` for its log.
    fn launch_with(image: &[u8], vcpus: usize, memory: u64, stderr: Stdio) -> Self {
        let mut eif = file_of("eif", 0);
        eif.write_all(image).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("vsock.sock")).unwrap();
        let nsm_listener = nsm_listener(&directory.path().join("nsm.sock"));
        let outcome = File::create(directory.path().join("outcome")).unwrap();
        let guest_memory = file_of("memory", memory);
        let kvm = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .expect("this test needs /dev/kvm");
        let (console, console_writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (control, vmm_end) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();

        let process = Command::new(env!("CARGO_BIN_EXE_enclave-vmm"))
            // Whoever runs tests need not be root.
            .args(["--allow-missing", &Layer::ALL.map(Layer::name).join(",")])
            .current_dir(directory.path())
            .stdin(Stdio::from(vmm_end))
            .stderr(stderr)
            .spawn()
            .unwrap();
        let spec = LaunchSpec {
            enclave_id: "i-0000000000000000-enc1".into(),
            guest_cid: 16,
            cpu_ids: vec![0; vcpus],
            threads_per_core: 1,
            memory: vec![MemoryFile {
                size: memory,
                page_size: 2 << 20,
                node: None,
            }],
            vsock: api::vmm::VsockBackend::Unix,
            debug_mode: true,
            isolated: false,
        };
        let descriptors = [
            kvm.as_fd(),
            eif.as_fd(),
            listener.as_fd(),
            nsm_listener.as_fd(),
            outcome.as_fd(),
            guest_memory.as_fd(),
            console_writer.as_fd(),
        ];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(7))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let message = serde_json::to_vec(&spec).unwrap();
        sendmsg(
            &control,
            &[IoSlice::new(&message)],
            &mut ancillary,
            SendFlags::empty(),
        )
        .unwrap();
        Self {
            process,
            control,
            console: console.into(),
            _directory: directory,
        }
    }

    fn event(&self) -> Event {
        let mut message = vec![0; MAX_MESSAGE];
        let (length, _) = recv(&self.control, &mut message[..], RecvFlags::empty()).unwrap();
        assert_ne!(length, 0, "the VMM closed its socket without a last event");
        serde_json::from_slice(&message[..length]).unwrap()
    }

    /// Everything until the end: the event after `Started`, the whole console, and that the process ended by itself.
    fn finish(mut self) -> (Event, String) {
        let first = self.event();
        assert!(matches!(first, Event::Measured(_)), "{first:?}");
        assert_eq!(self.event(), Event::Started);
        let last = self.event();
        let mut console = String::new();
        self.console.read_to_string(&mut console).unwrap();
        assert!(self.process.wait().unwrap().success());
        (last, console)
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn a_guest_prints_and_resets_itself() {
    let code = [print("Hello\n"), RESET.to_vec()].concat();

    let (end, console) = Vmm::launch(&eif_of(&elf(&code), "", &[b"r1", b"r2"]), 1, MEMORY).finish();

    assert_eq!(end, Event::Exited(ExitReason::Reset));
    assert_eq!(console, "Hello\n");
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn what_is_reported_as_measured_is_what_the_builder_measured() {
    let image = eif_of(&elf(&RESET), "console=ttyS0", &[b"first", b"second", b"third"]);
    let inspection = eif::inspect(&image[..], image.len() as u64).unwrap();

    let vmm = Vmm::launch(&image, 1, MEMORY);

    let Event::Measured(measured) = vmm.event() else {
        panic!("the first event is not Measured")
    };
    assert_eq!(measured.pcr0, inspection.measurements.pcr0.to_string());
    assert_eq!(measured.pcr1, inspection.measurements.pcr1.to_string());
    assert_eq!(measured.pcr2, inspection.measurements.pcr2.to_string());
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn a_signed_image_passes_its_signature_on_and_does_not_start_before_it_is_accepted() {
    let code = [print("Hello\n"), RESET.to_vec()].concat();
    let (image, section) = signed(&eif_of(&elf(&code), "", &[b"r1", b"r2"]));
    let mut vmm = Vmm::launch(&image, 1, MEMORY);

    let certificate = vec![0x30, 3, 2, 1, 7];
    let pcr8 = Pcr::of_data(&certificate).to_string();
    let cose_sign1 = section.cose_sign1;
    let signature = ImageSignature {
        certificate,
        cose_sign1,
    };
    assert_eq!(vmm.event(), Event::Signed(signature));
    assert!(matches!(vmm.event(), Event::Measured(measured) if measured.pcr8 == Some(pcr8)));
    set_socket_timeout(&vmm.control, Timeout::Recv, Some(Duration::from_millis(300))).unwrap();
    let nothing = recv(&vmm.control, &mut [0; 1024][..], RecvFlags::empty());
    assert_eq!(nothing, Err(Errno::AGAIN));
    set_socket_timeout(&vmm.control, Timeout::Recv, None).unwrap();

    let accept = serde_json::to_vec(&Instruction::Accept).unwrap();
    send(&vmm.control, &accept, SendFlags::empty()).unwrap();

    assert_eq!(vmm.event(), Event::Started);
    assert_eq!(vmm.event(), Event::Exited(ExitReason::Reset));
    let mut console = String::new();
    vmm.console.read_to_string(&mut console).unwrap();
    assert_eq!(console, "Hello\n");
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn the_guest_finds_ramdisks_and_command_line_where_the_zero_page_says() {
    // mov edi, [rsi + 0x218] (ramdisk_image); mov edx, 0x3f8; print 8 bytes from there;
    // mov edi, [rsi + 0x228] (cmd_line_ptr); print until NUL; reset.
    let print_ramdisk = [
        0x8b, 0xbe, 0x18, 0x02, 0x00, 0x00, // mov edi, [rsi + 0x218]
        0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, 0x3f8
        0xb9, 0x08, 0x00, 0x00, 0x00, // mov ecx, 8
        0x8a, 0x07, 0xee, 0xff, 0xc7, // 1: mov al, [rdi]; out dx, al; inc edi
        0xff, 0xc9, 0x75, 0xf7, // dec ecx; jnz 1b
    ];
    let print_cmdline = [
        0x8b, 0xbe, 0x28, 0x02, 0x00, 0x00, // mov edi, [rsi + 0x228]
        0x8a, 0x07, 0x84, 0xc0, 0x74, 0x05, // 2: mov al, [rdi]; test al, al; jz 3f
        0xee, 0xff, 0xc7, 0xeb, 0xf5, // out dx, al; inc edi; jmp 2b
    ];
    let code = [&print_ramdisk[..], &print_cmdline, &RESET].concat();

    let (_, console) = Vmm::launch(&eif_of(&elf(&code), "quiet", &[b"one", b"two!"]), 1, MEMORY).finish();

    // The first ramdisk is padded to four bytes.
    assert_eq!(
        console,
        "one\0two!quiet virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"
    );
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn unclaimed_ports_and_addresses_read_as_ones() {
    let code = [
        0xe4, 0x11, // in al, 0x11
        0x3c, 0xff, 0x75, 0xfe, // cmp al, 0xff; jne .
        0x8a, 0x04, 0x25, 0x00, 0x00, 0x00, 0x30, // mov al, [0x30000000]: mapped, but no memory there
        0x3c, 0xff, 0x75, 0xfe, // cmp al, 0xff; jne .
        0xb0, b'K', 0x66, 0xba, 0xf8, 0x03, 0xee, // mov al, 'K'; mov dx, 0x3f8; out dx, al
    ];

    let (end, console) =
        Vmm::launch(&eif_of(&elf(&[&code[..], &RESET].concat()), "", &[]), 1, MEMORY).finish();

    assert_eq!(end, Event::Exited(ExitReason::Reset));
    assert_eq!(console, "K");
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn a_log_that_nobody_reads_does_not_end_the_enclave() {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    // An unclaimed port is worth a line.
    let code = [&[0xe4, 0x11][..], &RESET].concat();

    let image = eif_of(&elf(&code), "", &[]);
    let (end, _) = Vmm::launch_with(&image, 1, MEMORY, Stdio::from(writer)).finish();

    assert_eq!(end, Event::Exited(ExitReason::Reset));
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn a_triple_fault_ends_the_enclave() {
    // The interrupt table is empty, so the undefined instruction cannot be delivered.
    let (end, _) = Vmm::launch(&eif_of(&elf(&[0x0f, 0x0b]), "", &[]), 1, MEMORY).finish();

    assert_eq!(end, Event::Exited(ExitReason::TripleFault));
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn halting_with_interrupts_off_for_ever_ends_the_enclave_on_one_and_on_many_vcpus() {
    for vcpus in [1, 3] {
        // cli; hlt; jmp back
        let (end, _) = Vmm::launch(&eif_of(&elf(&[0xfa, 0xf4, 0xeb, 0xfc]), "", &[]), vcpus, MEMORY).finish();

        assert_eq!(end, Event::Exited(ExitReason::Halted));
    }
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn the_vmm_ends_when_its_daemon_goes_away() {
    let image = eif_of(&elf(&[0xeb, 0xfe]), "", &[]);
    let mut vmm = Vmm::launch_with(&image, 1, MEMORY, Stdio::piped());
    assert!(matches!(vmm.event(), Event::Measured(_)));
    assert_eq!(vmm.event(), Event::Started);

    let (other, _) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    vmm.control = other;

    assert!(vmm.process.wait().unwrap().success());
    let mut log = String::new();
    let mut stderr = vmm.process.stderr.take().unwrap();
    stderr.read_to_string(&mut log).unwrap();
    assert!(log.contains("Abandoned"), "{log}");
}

/// What a VMM says about an image that it cannot start.
fn failure(image: &[u8], memory: u64) -> (ErrorCode, String) {
    let vmm = Vmm::launch(image, 1, memory);
    loop {
        match vmm.event() {
            Event::Failed(failure) => return (failure.code, failure.message),
            Event::Measured(_) => {}
            other => panic!("{other:?} instead of a failure"),
        }
    }
}

#[test]
#[ignore = "needs /dev/kvm; cargo xtask test runs it where there is one"]
fn an_image_that_cannot_be_started_is_refused_in_words() {
    let good = eif_of(&elf(&RESET), "", &[b"ramdisk"]);
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let long_cmdline = "x".repeat(2048);
    let huge_ramdisk = vec![0; 63 << 20];
    let mut foreign = good.clone();
    foreign[7] = 1;
    let cases: [(&str, Vec<u8>, ErrorCode, &str); 8] = [
        ("no EIF", b"#!/bin/sh\n".to_vec(), ErrorCode::EifParsing, "EIF"),
        (
            "truncated",
            good[..good.len() - 1].to_vec(),
            ErrorCode::EifParsing,
            "ramdisk",
        ),
        ("CRC", damaged, ErrorCode::EifParsing, "CRC"),
        ("processor", foreign, ErrorCode::EifParsing, "aarch64"),
        (
            "no kernel",
            eif_of(b"not a kernel", "", &[]),
            ErrorCode::EifParsing,
            "neither a bzImage nor an ELF",
        ),
        (
            "32-bit kernel",
            eif_of(&elf32(), "", &[]),
            ErrorCode::EifParsing,
            "64-bit",
        ),
        (
            "command line",
            eif_of(&elf(&RESET), &long_cmdline, &[]),
            ErrorCode::EifParsing,
            "command line",
        ),
        (
            "ramdisk",
            eif_of(&elf(&RESET), "", &[&huge_ramdisk]),
            ErrorCode::MemoryOverflow,
            "more memory",
        ),
    ];
    for (name, image, expected, words) in cases {
        let (code, message) = failure(&image, MEMORY);

        assert_eq!(code, expected, "{name}: {message}");
        assert!(message.contains(words), "{name}: {message}");
    }
}

fn elf32() -> Vec<u8> {
    let mut image = elf(&RESET);
    image[4] = 1;
    image
}
