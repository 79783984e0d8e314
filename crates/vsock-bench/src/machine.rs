//! Starts the guest in one of the three VMMs that are compared.

use std::{
    fs::{self, File},
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use api::vmm::VsockBackend;
use bench::{Launch, Vmm};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use vsock_bench::port;

use bench::{at, system};

use crate::{
    error::Error,
    guest::{self, Guest},
    way::{Kind, Way},
};

/// CIDs of the guests; each has its own so that nothing of one guest can reach the next.
const KERNEL_CID: u32 = 16;
const UNIX_CID: u32 = 17;
const RAW_CID: u32 = 18;

/// Who carries the guest's vsock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// `enclave-vmm` in front of vhost-vsock.
    Kernel,
    /// `enclave-vmm` with Unix sockets.
    Unix,
    /// QEMU, which lets vhost-vsock use the guest's virtqueues.
    Raw,
}

impl Carrier {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 3] = [Self::Kernel, Self::Unix, Self::Raw];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel backend",
            Self::Unix => "Unix backend",
            Self::Raw => "raw vhost-vsock",
        }
    }
}

/// What every guest is started with.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) guest: Guest,
    pub(crate) vmm: PathBuf,
    pub(crate) qemu: PathBuf,
    /// Guest memory in MiB.
    pub(crate) memory: u64,
    /// The CPU that the vCPU has.
    pub(crate) cpu: u32,
    /// For sockets and logs.
    pub(crate) directory: PathBuf,
    /// How long anything may take that is waited for.
    pub(crate) limit: Duration,
}

/// A guest that is ready; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) way: Way,
    /// Takes orders.
    pub(crate) control: UnixStream,
    _process: Process,
}

/// Whatever runs the guest.
#[derive(Debug)]
#[expect(dead_code, reason = "held until the guest shall end")]
enum Process {
    Enclave(Vmm),
    Qemu(Qemu),
}

/// Keeps this program, and what it starts, off the CPU of the guest, as a parent's programs are kept off the CPUs of its enclaves. If
/// there is no other, all share it.
pub(crate) fn leave_to_guest(cpu: u32) -> Result<(), Error> {
    let mut cpus = sched_getaffinity(None).map_err(system("learn which CPUs there are"))?;
    cpus.unset(cpu as usize);
    if cpus.count() > 0 {
        sched_setaffinity(None, &cpus).map_err(system("keep off the guest's CPU"))?;
    }
    Ok(())
}

#[derive(Debug)]
struct Qemu(Child);

/// The name of QEMU's vCPU thread, if it names its threads.
const VCPU_THREAD: &str = "CPU 0/KVM";

impl Qemu {
    /// Gives the vCPU thread its CPU, as `enclave-vmm` does of itself.
    fn pin(&self, cpu: u32) -> Result<(), Error> {
        let tasks = format!("/proc/{}/task", self.0.id());
        let tasks = Path::new(&tasks);
        for task in fs::read_dir(tasks).map_err(at("read", tasks))?.flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let thread = task
                .file_name()
                .to_string_lossy()
                .parse()
                .ok()
                .and_then(Pid::from_raw);
            if name.trim_end() == VCPU_THREAD {
                let mut cpus = CpuSet::new();
                cpus.set(cpu as usize);
                sched_setaffinity(thread, &cpus).map_err(system("give QEMU's vCPU its CPU"))?;
            }
        }
        Ok(())
    }
}

impl Host {
    /// Starts the guest and waits until it is ready.
    pub(crate) fn start(&self, carrier: Carrier) -> Result<io::Result<Machine>, Error> {
        let kind = match carrier {
            Carrier::Kernel => Kind::Vsock(KERNEL_CID),
            Carrier::Unix => Kind::Unix(self.directory.clone()),
            Carrier::Raw => Kind::Vsock(RAW_CID),
        };
        let way = Way {
            kind,
            limit: self.limit,
        };
        let listener = way
            .listen(port::CONTROL)
            .map_err(system("listen for the guest"))?;
        let process = match carrier {
            Carrier::Kernel => Process::Enclave(self.enclave(KERNEL_CID, VsockBackend::Kernel)?),
            Carrier::Unix => Process::Enclave(self.enclave(UNIX_CID, VsockBackend::Unix)?),
            Carrier::Raw => Process::Qemu(self.qemu()?),
        };
        let control = match way.accept(&listener) {
            Ok(control) => control,
            Err(error) => return Ok(Err(error)),
        };
        if let Process::Qemu(qemu) = &process {
            qemu.pin(self.cpu)?;
        }
        Ok(Ok(Machine {
            way,
            control,
            _process: process,
        }))
    }

    fn enclave(&self, guest_cid: u32, vsock: VsockBackend) -> Result<Vmm, Error> {
        let vmm = Vmm::launch(Launch {
            program: &self.vmm,
            eif: &self.guest.eif,
            memory: self.memory << 20,
            directory: &self.directory,
            guest_cid,
            vsock,
            cpu: self.cpu,
        })?;
        Ok(vmm)
    }

    /// The smallest machine that QEMU has, without any device but the one that is measured; guest memory as the enclaves
    /// have it.
    fn qemu(&self) -> Result<Qemu, Error> {
        let log = self.directory.join("qemu.log");
        let log_file = File::create(&log).map_err(at("create", &log))?;
        let mut command = Command::new(&self.qemu);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-name", "vsock-bench,debug-threads=on"]);
        command.arg("-M").arg(
            "microvm,accel=kvm,acpi=off,rtc=off,isa-serial=off,x-option-roms=off,auto-kernel-cmdline=on,\
             memory-backend=memory",
        );
        command.args(["-cpu", "host", "-smp", "1"]);
        command.arg("-m").arg(format!("{}M", self.memory));
        command.arg("-object").arg(format!(
            "memory-backend-memfd,id=memory,size={}M,share=on,hugetlb=on,hugetlbsize=2M",
            self.memory
        ));
        // The device is one of virtio 1, as ours is.
        command.args(["-global", "virtio-mmio.force-legacy=false"]);
        command
            .arg("-device")
            .arg(format!("vhost-vsock-device,guest-cid={RAW_CID}"));
        command.arg("-kernel").arg(&self.guest.kernel);
        command.arg("-initrd").arg(&self.guest.initramfs);
        command.arg("-append").arg(guest::arguments(2));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file);
        Ok(command.spawn().map(Qemu).map_err(at("run", &self.qemu))?)
    }

    /// What QEMU has said, to be shown when its guest does not come.
    pub(crate) fn qemu_log(&self) -> String {
        fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for the sockets of one run.
pub(crate) fn directory() -> Result<PathBuf, Error> {
    let directory = Path::new("/tmp/vsock-bench").to_owned();
    fs::create_dir_all(&directory).map_err(at("create", &directory))?;
    Ok(directory)
}
