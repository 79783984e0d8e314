//! Clearing guest memory before its pages go back to the pool.
//!
//! The kernel clears a hugepage when it gives it to a process, not when it takes it back: what an enclave knew would lie in
//! the pool until somebody needs the page. So the daemon keeps the memory files of each enclave open and, when the VMM has
//! ended, clears them before it lets them go.
//!
//! No page is mapped for that. Punching a hole that covers only a part of a hugepage makes the kernel zero that part, and
//! pass over pages that were never touched (`hugetlbfs_punch_hole` in `fs/hugetlbfs/inode.c`; since Linux 6.0, older kernels
//! ignore such a hole). Each page is therefore punched in parts.
//!
//! A daemon that takes over an enclave opens the files of its VMM. Memory of a VMM that ends while there is no daemon is the
//! one that goes back as it is.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags};

use crate::admission::memory::GuestMemory;
use crate::process_identity::ProcessIdentity;

/// The first major version of Linux that clears parts of hugepages.
const SINCE_LINUX: u32 = 6;

/// `HUGETLBFS_MAGIC` in `include/uapi/linux/magic.h`.
const HUGETLBFS: u64 = 0x9584_58f6;

/// The largest part of a page that is cleared in one system call, in bytes: some milliseconds of work.
const LARGEST_PART: u64 = 32 << 20;

/// How the memory files of a VMM appear among its descriptors.
const LINK: &str = "/memfd:enclave-memory";

/// The memory files of one enclave. They keep its pages from the pool until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct HeldMemory(Vec<OwnedFd>);

impl HeldMemory {
    /// Of an enclave that is about to be launched.
    pub(crate) fn of(memory: &[GuestMemory]) -> io::Result<Self> {
        let files = memory.iter().map(|memory| memory.file.try_clone());
        files.collect::<Result<_, _>>().map(Self)
    }

    /// Of an enclave of `mib` MiB that an earlier daemon has launched. Files beyond that, which its VMM must have made itself,
    /// are not held.
    pub(crate) fn of_process(vmm: &ProcessIdentity, mib: u64) -> io::Result<Self> {
        let mut left = mib << 20;
        let descriptors = format!("/proc/{}/fd", vmm.process_id);
        let mut files = Vec::new();
        for entry in fs::read_dir(descriptors)? {
            let path = entry?.path();
            // One that is closed meanwhile was no memory file.
            let is_memory =
                fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with(LINK));
            if is_memory {
                // Only found, not opened: a VMM that was taken over may have given that name to a device, for which even being
                // opened means something.
                let found = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                let size = u64::try_from(rustix::fs::fstat(&found)?.st_size).unwrap_or(u64::MAX);
                if u64::try_from(rustix::fs::fstatfs(&found)?.f_type) == Ok(HUGETLBFS) && size <= left {
                    left -= size;
                    files.push(reopened(&found)?);
                }
            }
        }
        // Another process may have got the number before they were opened.
        match vmm.open() {
            Some(_) => Ok(Self(files)),
            None => Ok(Self::default()),
        }
    }

    /// Clears every page that was touched, and gives all of them back. The VMM must have ended.
    pub(crate) async fn clear(self) -> io::Result<()> {
        let clear = move || self.0.iter().try_for_each(clear_file).map_err(io::Error::from);
        tokio::task::spawn_blocking(clear)
            .await
            .map_err(io::Error::other)?
    }
}

/// The file that was found, open for reading and writing.
fn reopened(found: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Says in the log, once, if this kernel does not clear hugepages on demand.
pub(crate) fn warn_if_not_cleared() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if !clears_parts(&release) {
        tracing::warn!(
            release,
            "guest memory is not cleared when an enclave ends, only before somebody else gets it: that needs Linux 6.0"
        );
    }
}

fn clears_parts(release: &str) -> bool {
    let major = release.split('.').next().and_then(|major| major.parse().ok());
    major.is_some_and(|major: u32| major >= SINCE_LINUX)
}

fn clear_file(file: &OwnedFd) -> rustix::io::Result<()> {
    let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or_default();
    // The block size of hugetlbfs is the size of its pages.
    let page = u64::try_from(rustix::fs::fstatfs(file)?.f_bsize).unwrap_or_default();
    for (offset, length) in parts(size, page) {
        rustix::fs::fallocate(
            file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            length,
        )?;
    }
    Ok(())
}

/// All of a file in parts, each smaller than a page and in one, as offset and length.
fn parts(size: u64, page: u64) -> impl Iterator<Item = (u64, u64)> {
    let part = (page / 2).clamp(1, LARGEST_PART);
    (0..size / part).map(move |number| (number * part, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek};

    #[test]
    fn parts_cover_all_of_a_file_and_none_covers_a_page() {
        for (size, page) in [(512 << 20, 2 << 20), (5 << 30, 1 << 30), (8192, 4096)] {
            let mut end = 0;
            for (offset, length) in parts(size, page) {
                assert_eq!(offset, end);
                assert!(length < page && offset / page == (offset + length - 1) / page);
                end = offset + length;
            }
            assert_eq!(end, size);
        }
        assert_eq!(parts(0, 2 << 20).count(), 0);
    }

    #[tokio::test]
    async fn nothing_is_left_of_what_was_written() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        io::Write::write_all(&mut file, &vec![0xa5; 10 * 4096]).unwrap();
        let held = HeldMemory(vec![file.try_clone().unwrap().into()]);

        held.clear().await.unwrap();

        let mut left = Vec::new();
        file.rewind().unwrap();
        File::read_to_end(&mut file, &mut left).unwrap();
        assert!(left.len() == 10 * 4096 && left.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn of_a_processs_files_only_memory_files_are_held() {
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        let name = "enclave-memory";
        let _not_huge = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();

        assert!(HeldMemory::of_process(&own, 64).unwrap().0.is_empty());
    }

    #[test]
    fn kernels_are_told_apart() {
        for (release, clears) in [
            ("5.15.0-91-generic", false),
            ("6.0.0", true),
            ("6.12.38+deb13", true),
            ("", false),
        ] {
            assert_eq!(clears_parts(release), clears, "{release}");
        }
    }
}
