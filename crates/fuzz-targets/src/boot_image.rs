//! Enclave images on their way into guest memory: kernels, command lines and ramdisks.
//!
//! An input is a whole image if it begins as one. Otherwise it is what goes into one, so that no checksum is in the way:
//!
//! ```text
//! cmdline ramdisk ramdisk     three lengths, a byte each, in units of 4 bytes
//! bytes of these three, then the kernel
//! ```

use std::io::Cursor;

use eif::{Arch, Builder, Layout, Metadata, SectionKind, inspect};
use enclave_vmm::arch::{BootData, layout, write_boot_data};
use enclave_vmm::fuzzing::load_image;
use enclave_vmm::load::Loaded;
use virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// Memory of the enclave, in two files.
const RAM: u64 = 8 << 20;
const FIRST_FILE: u64 = 2 << 20;

/// Below are only boot data, which are written last.
const LOWEST: u64 = 1 << 20;

/// What is loaded is what is measured, lies in memory and where the kernel does not expect anything else. An image that is refused
/// is refused in one line.
pub(crate) fn check(input: &[u8]) {
    let built = (!input.starts_with(b".eif")).then(|| build(input));
    let image = match &built {
        Some(Some(image)) => image,
        Some(None) => return,
        None => input,
    };
    let cuts = [(0, FIRST_FILE), (FIRST_FILE, RAM - FIRST_FILE)];
    let ranges =
        cuts.map(|(start, length)| (GuestAddress(start), usize::try_from(length).expect("it is small")));
    let (memory, loaded) = load_image(image, &ranges).expect("memory");
    match loaded {
        Ok(loaded) => {
            is_in_its_place(image, &memory, &loaded);
            boots(&memory, &loaded);
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains('\n'), "{said}");
        }
    }
}

fn is_in_its_place(image: &[u8], memory: &GuestMemory, loaded: &Loaded) {
    let size = image.len() as u64;
    let inspected = inspect(image, size).expect("it was loaded");
    assert!(inspected.crc_ok);
    let [ours, theirs] = [&loaded.measurements, &inspected.measurements];
    assert_eq!(ours.pcr0, theirs.pcr0);
    assert_eq!((ours.pcr1, ours.pcr2), (theirs.pcr1, theirs.pcr2));

    let layout = Layout::read(image, size).expect("it was loaded");
    let section = |kind| layout.sections.iter().filter(move |section| section.kind == kind);
    let bytes = |start: u64, length: u64| {
        let at = |offset| usize::try_from(offset).expect("it is in the image");
        &image[at(start)..at(start + length)]
    };
    let kernel = section(SectionKind::Kernel).next().expect("a kernel");
    let segments = &loaded.kernel.segments;
    for segment in segments {
        let (start, length) = (segment.guest_address, segment.file_len);
        assert!(start >= LOWEST && start + length <= loaded.kernel.memory_end);
        // Of segments that overlap it does not matter which one is last.
        let overlaps = segments.iter().filter(|other| {
            other.guest_address < start + length && start < other.guest_address + other.file_len
        });
        if overlaps.count() == 1 {
            let expected = bytes(kernel.offset + segment.file_offset, length);
            assert!(read(memory, start, length) == expected, "{segment:?}");
        }
    }
    assert!(loaded.kernel.memory_end <= RAM);

    let mut address = loaded.initrd.map_or(0, |(start, length)| {
        assert!(start >= loaded.kernel.memory_end && start + length <= RAM);
        start
    });
    for ramdisk in section(SectionKind::Ramdisk) {
        if ramdisk.size > 0 {
            let expected = bytes(ramdisk.offset, ramdisk.size);
            assert!(read(memory, address, ramdisk.size) == expected, "a ramdisk");
        }
        address += ramdisk.size.next_multiple_of(4);
    }
}

/// All that is written beside the image has its place.
fn boots(memory: &GuestMemory, loaded: &Loaded) {
    assert!(loaded.cmdline.len() < layout::CMDLINE_CAPACITY);
    let data = BootData {
        kernel: &loaded.kernel,
        cmdline: &loaded.cmdline,
        initrd: loaded.initrd,
        ram: RAM,
        vcpus: 2,
    };
    write_boot_data(memory, &data).expect("boot data are below the kernel");
}

fn read(memory: &GuestMemory, address: u64, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(length).expect("it is small")];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .expect("it is in memory");
    bytes
}

/// An image of the parts in an input.
fn build(input: &[u8]) -> Option<Vec<u8>> {
    let (lengths, mut rest) = input.split_first_chunk::<3>()?;
    let mut parts = Vec::new();
    for length in lengths {
        let (part, after) = rest.split_at_checked(usize::from(*length) * 4)?;
        parts.push(part);
        rest = after;
    }
    let mut image = Cursor::new(Vec::new());
    let mut builder = Builder::new(
        &mut image,
        Arch::X86_64,
        &mut Cursor::new(rest),
        parts[0],
        &Metadata::default(),
    )
    .ok()?;
    for ramdisk in &parts[1..] {
        builder.add_ramdisk(&mut Cursor::new(ramdisk)).ok()?;
    }
    builder.finish().ok()?;
    Some(image.into_inner())
}
