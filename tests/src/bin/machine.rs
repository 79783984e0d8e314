//! Enclave application: prints what machine it finds itself on, one fact per line. With the argument `fill` and a number
//! of MiB it takes that much memory, writes to every page of it, reads it all back, and says how much of it lies above
//! 4 GiB of guest-physical address space. Then it does nothing.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
const WORDS_PER_PAGE: usize = PAGE / size_of::<u64>();

/// Where in `struct boot_params` (Documentation/arch/x86/zero-page.rst) the address of the initramfs is: low and high half.
const RAMDISK_IMAGE: u64 = 0x218;
const EXT_RAMDISK_IMAGE: u64 = 0x0c0;

/// In `/proc/self/pagemap` (Documentation/admin-guide/mm/pagemap.rst): the page is in memory, in this frame.
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    println!("memory: {} KiB", total_memory()?);
    let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
    println!("CPUs online: {}", online.trim_end());
    println!("ran on: {:?}", cpus_that_run(&online));
    let siblings = fs::read_to_string("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")?;
    println!("siblings of CPU 0: {}", siblings.trim_end());
    println!("initramfs at {} MiB", initramfs()? / MIB as u64);
    if let [verb, size] = words.as_slice()
        && verb == "fill"
    {
        let size: usize = size.parse().map_err(io::Error::other)?;
        fill(size)?;
    }
    println!("machine: end of facts");
    end_to_end_tests::guest::idle();
}

/// `MemTotal` of `/proc/meminfo`.
fn total_memory() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_ascii_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The CPUs up to the last one in the list `online` on which a thread bound to them runs.
fn cpus_that_run(online: &str) -> Vec<usize> {
    let last = online.trim_end().rsplit(['-', ',']).next();
    let last = last.and_then(|number| number.parse().ok()).unwrap_or(0);
    let run_on = |cpu| {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).ok()?;
        Some(sched_getcpu())
    };
    let threads: Vec<_> = (0..=last).map(|cpu| thread::spawn(move || run_on(cpu))).collect();
    threads
        .into_iter()
        .filter_map(|thread| thread.join().ok().flatten())
        .collect()
}

/// The guest-physical address at which the machine has put the initramfs.
fn initramfs() -> io::Result<u64> {
    let file = File::open("/sys/kernel/boot_params/data")?;
    let half = |offset| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, offset)?;
        io::Result::Ok(u64::from(u32::from_le_bytes(bytes)))
    };
    Ok(half(RAMDISK_IMAGE)? | half(EXT_RAMDISK_IMAGE)? << 32)
}

/// One word of each page is written and read back: what the pages mean for guest memory, without what they cost.
fn fill(mib: usize) -> io::Result<()> {
    let mut memory = vec![0_u64; mib * MIB / size_of::<u64>()];
    for (number, page) in (1..).zip(memory.chunks_exact_mut(WORDS_PER_PAGE)) {
        page[0] = value(number);
    }
    let pages = memory.chunks_exact(WORDS_PER_PAGE);
    let wrong = (1..)
        .zip(pages)
        .filter(|(number, page)| page[0] != value(*number))
        .count();
    println!("filled {mib} MiB, {wrong} pages are wrong");
    println!("above 4 GiB: {} MiB", frames_above_4g(&memory)? * PAGE / MIB);
    Ok(())
}

/// Differs from page to page.
fn value(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// How many of the pages of `memory` are in frames above 4 GiB.
fn frames_above_4g(memory: &[u64]) -> io::Result<usize> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let first = memory.as_ptr().addr() / PAGE;
    let mut entries = vec![0; memory.len() / WORDS_PER_PAGE * size_of::<u64>()];
    pagemap.read_exact_at(&mut entries, (first * size_of::<u64>()) as u64)?;
    let above = |entry: &[u8]| {
        let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
        entry & PRESENT != 0 && (entry & FRAME) * PAGE as u64 >= 4 << 30
    };
    Ok(entries
        .chunks_exact(size_of::<u64>())
        .filter(|entry| above(entry))
        .count())
}
