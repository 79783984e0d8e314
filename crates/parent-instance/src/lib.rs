//! A parent instance: a QEMU machine with real nested KVM, hugepages, vhost-vsock and NUMA, to test and demonstrate on.
//!
//! QEMU emulates the processor (TCG), so the machine runs on any host, with or without KVM. The emulated processor has
//! AMD's virtualisation extension (`svm`), so inside the machine `/dev/kvm` is real: Linux's `kvm-amd` with
//! nested paging. The machine has no disk. Everything it needs is in one initramfs: busybox, the files and Debian
//! packages that the caller names, and [`init.sh`](../src/init.sh), its process 1. On request that becomes systemd, and the
//! machine a host on which Debian packages can be installed.
//!
//! # Model
//!
//! ```text
//! Config           plain data: processors, memory, hugepages, files, packages
//!   │ ParentInstance::prepare   checks it, downloads packages
//! ParentInstance   can run any number of commands, one machine for each
//!   │ run(Session)              writes the initramfs, starts QEMU, waits, ends QEMU whatever happens
//! Exit             the command's exit status
//! ```
//!
//! # How the machine and its caller talk
//!
//! Three virtio-serial ports, each a Unix socket on the caller's side: `stdout` and `stderr` carry the command's output
//! and nothing else, and `status` carries one line for each step that [`init.sh`](../src/init.sh) and
//! [`session.sh`](../src/session.sh) have taken:
//!
//! ```text
//! init                  process 1 runs; a machine that never says so is started once more
//! ready                 devices, hugepages, share and daemon are in place, the command starts
//! exit CODE OUT ERR     the command has ended; OUT and ERR are the bytes it has written to each port
//! failed TEXT           the machine could not be made ready
//! ```
//!
//! The byte counts are needed because ports are independent: the status line may overtake output that a slow reader has
//! not taken yet. The kernel's log goes to a serial port of its own and is kept in a file when something fails.
//! An interactive [`Session`] uses a fourth port, the virtio console `hvc0`, instead of `stdout` and `stderr`.
//!
//! # What is never left behind
//!
//! QEMU is killed when its `Machine` is dropped, and by the kernel when the thread that started it ends, however it ends
//! (`PR_SET_PDEATHSIG`). Machines share nothing, so any number can run side by side.

mod config;
mod directory;
mod error;
mod initramfs;
mod instance;
mod machine;
mod packages;
mod ports;
mod qemu;
mod status;
mod systemd;
mod terminal;
mod tsc;

pub use config::{Config, GuestFile, HUGEPAGE_1G, HUGEPAGE_2M};
pub use error::Error;
pub use instance::{Exit, ParentInstance, Session};
