//! vCPU threads: enter the guest, serve the exit, repeat.
//!
//! The run loop works on the [`VirtualCpu`] trait, whose [`Exit`] is all it has to decide on, so that it is tested
//! with a scripted vCPU. A real one is a KVM vCPU on a thread pinned to one of the enclave's CPUs.
//!
//! A signal makes a vCPU leave the guest and look whether it is halted for ever; what follows from that is [`StallCheck`]'s.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, mpsc::Sender},
    thread::JoinHandle,
};

use api::vmm::ExitReason;
use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::{
    eventfd::EventFd,
    signal::{Killable, SIGRTMIN, register_signal_handler},
};

use crate::{arch, bus::Bus, log, sandbox::filter::Filter, stall::StallCheck};

/// Why a vCPU came back from the guest.
#[derive(Debug)]
pub enum Exit<'a> {
    /// `in`: fill the data.
    PortRead(u16, &'a mut [u8]),
    /// `out`.
    PortWrite(u16, &'a [u8]),
    /// A load from an address without memory: fill the data.
    MmioRead(u64, &'a mut [u8]),
    /// A store to an address without memory.
    MmioWrite(u64, &'a [u8]),
    /// A signal arrived; the guest goes on.
    Interrupted,
    /// KVM reports a shutdown: a triple fault.
    Shutdown,
    /// KVM cannot go on; the text says what it reported.
    Failed(String),
}

/// Something that runs guest code.
pub trait VirtualCpu {
    /// Runs until the guest needs something.
    fn run(&mut self) -> Exit<'_>;
    /// Whether nothing but another vCPU can make it run again. Asked only after [`Exit::Interrupted`].
    fn halted_for_ever(&mut self) -> bool;
}

/// The two address spaces that vCPUs reach.
#[derive(Debug)]
pub struct Buses {
    /// I/O ports.
    pub ports: Bus,
    /// Memory-mapped devices.
    pub mmio: Bus,
}

/// Runs `vcpu`, whose number is `number`, until the guest ends.
pub fn run(vcpu: &mut impl VirtualCpu, number: usize, buses: &Buses, stall: &StallCheck) -> ExitReason {
    loop {
        match vcpu.run() {
            Exit::PortRead(port, data) => buses.ports.read(port.into(), data),
            Exit::PortWrite(port, data) => buses.ports.write(port.into(), data),
            Exit::MmioRead(address, data) => buses.mmio.read(address, data),
            Exit::MmioWrite(address, data) => buses.mmio.write(address, data),
            Exit::Interrupted => {
                if stall.look(number, vcpu.halted_for_ever()) {
                    return ExitReason::Halted;
                }
            }
            Exit::Shutdown => return ExitReason::TripleFault,
            Exit::Failed(what) => return ExitReason::Crashed(what),
        }
    }
}

impl VirtualCpu for VcpuFd {
    fn run(&mut self) -> Exit<'_> {
        match self.run() {
            Ok(VcpuExit::IoIn(port, data)) => Exit::PortRead(port, data),
            Ok(VcpuExit::IoOut(port, data)) => Exit::PortWrite(port, data),
            Ok(VcpuExit::MmioRead(address, data)) => Exit::MmioRead(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => Exit::MmioWrite(address, data),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Exit::Interrupted,
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::InternalError) => Exit::Failed(
                "KVM_EXIT_INTERNAL_ERROR; this KVM may emulate guests instead of running them".to_owned(),
            ),
            Ok(other) => Exit::Failed(format!("unexpected exit {other:?}")),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => Exit::Interrupted,
            Err(error) => Exit::Failed(format!("KVM_RUN: {error}")),
        }
    }

    fn halted_for_ever(&mut self) -> bool {
        arch::halted_for_ever(self)
    }
}

/// The signal that makes `KVM_RUN` return. It does nothing else.
fn kick_signal() -> i32 {
    SIGRTMIN()
}

extern "C" fn return_from_kvm_run(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Where vCPU threads report the end of the guest: the reason, and a wake-up for the device thread.
#[derive(Debug, Clone)]
pub struct EndReporter {
    /// The reasons, in order; the first one counts.
    pub reasons: Sender<ExitReason>,
    /// Written after each.
    pub wake: Arc<EventFd>,
}

impl EndReporter {
    /// Reports `reason`. Later reports are ignored by the receiver.
    pub fn report(&self, reason: ExitReason) {
        // Either can only fail when the receiver is gone, that is, when the process is already ending.
        drop(self.reasons.send(reason));
        drop(self.wake.write(1));
    }
}

/// Where vCPU threads run.
#[derive(Debug)]
pub struct Placement<'a> {
    /// The parent's CPU for each vCPU.
    pub cpu_ids: &'a [u32],
    /// The list of threads of the control group that has these CPUs, if one has: the threads move there first.
    pub group: Option<Arc<File>>,
}

/// All vCPU threads of the enclave. They are never joined: the process ends under them.
#[derive(Debug)]
pub struct VcpuThreads {
    threads: Vec<JoinHandle<()>>,
    stall: Arc<StallCheck>,
}

impl VcpuThreads {
    /// Starts one thread for each vCPU, pinned to the parent CPU at the same position of `place.cpu_ids`, and held by `filter`.
    ///
    /// # Errors
    /// A thread or the signal handler could not be made.
    pub fn start(
        vcpus: Vec<VcpuFd>,
        place: &Placement<'_>,
        filter: &Filter,
        buses: &Arc<Buses>,
        end: &EndReporter,
    ) -> io::Result<Self> {
        register_signal_handler(kick_signal(), return_from_kvm_run)?;
        let stall = Arc::new(StallCheck::new(vcpus.len()));
        let mut threads = Vec::with_capacity(vcpus.len());
        let cpus = place.cpu_ids.iter().copied();
        for (number, (mut vcpu, cpu)) in vcpus.into_iter().zip(cpus).enumerate() {
            let (buses, end, stall) = (buses.clone(), end.clone(), stall.clone());
            let group = place.group.clone();
            let filter = filter.clone();
            let body = move || {
                join(group.as_deref());
                pin_to(cpu);
                let reason = match filter.install() {
                    Ok(()) => run(&mut vcpu, number, &buses, &stall),
                    Err(error) => ExitReason::Crashed(log::chain(&error)),
                };
                end.report(reason);
            };
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{number}"))
                .spawn(body)?;
            threads.push(thread);
        }
        Ok(Self { threads, stall })
    }

    /// Makes every vCPU leave the guest once and look at itself. If the guest has halted for ever, one of them reports
    /// [`ExitReason::Halted`], in the second call at the earliest.
    pub fn check_stall(&self) {
        self.stall.begin_round();
        for thread in &self.threads {
            // The thread exists as long as its handle, so this cannot fail.
            let _ = thread.kill(kick_signal());
        }
    }
}

/// Moves the calling thread to the control group that has its CPU; outside of it the thread could not be pinned.
fn join(group: Option<&File>) {
    // In a list of threads, 0 is the one that writes it.
    if let Some(Err(error)) = group.map(|mut group| group.write_all(b"0")) {
        log::line(format_args!(
            "a vCPU thread could not be moved to the control group of its CPU: {error}"
        ));
    }
}

/// Pins the calling thread. A parent CPU that went away since admission is no reason not to run: the thread then runs
/// where the kernel puts it, and the log says so.
fn pin_to(cpu: u32) {
    let mut set = rustix::thread::CpuSet::new();
    let in_range = usize::try_from(cpu)
        .ok()
        .filter(|cpu| *cpu < rustix::thread::CpuSet::MAX_CPU);
    if let Some(cpu) = in_range {
        set.set(cpu);
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        log::line(format_args!(
            "vCPU thread could not be pinned to CPU {cpu}: {error}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::bus::ExclusiveDevice;

    /// What a scripted vCPU does at one step.
    enum Step {
        PortWrite(u16, Vec<u8>),
        PortRead(u16),
        MmioWrite(u64, Vec<u8>),
        Interrupted { halted: bool },
        Shutdown,
        Failed,
    }

    struct Scripted {
        steps: VecDeque<Step>,
        buffer: Vec<u8>,
        halted: bool,
    }

    impl Scripted {
        fn new(steps: impl IntoIterator<Item = Step>) -> Self {
            Self {
                steps: steps.into_iter().collect(),
                buffer: vec![0],
                halted: false,
            }
        }
    }

    impl VirtualCpu for Scripted {
        fn run(&mut self) -> Exit<'_> {
            match self.steps.pop_front().expect("the loop went on after the end") {
                Step::PortWrite(port, data) => {
                    self.buffer = data;
                    Exit::PortWrite(port, &self.buffer)
                }
                Step::PortRead(port) => Exit::PortRead(port, &mut self.buffer),
                Step::MmioWrite(address, data) => {
                    self.buffer = data;
                    Exit::MmioWrite(address, &self.buffer)
                }
                Step::Interrupted { halted } => {
                    self.halted = halted;
                    Exit::Interrupted
                }
                Step::Shutdown => Exit::Shutdown,
                Step::Failed => Exit::Failed("KVM_EXIT_UNKNOWN".to_owned()),
            }
        }

        fn halted_for_ever(&mut self) -> bool {
            self.halted
        }
    }

    #[derive(Default)]
    struct Recorder(Vec<(u64, Vec<u8>)>);

    impl ExclusiveDevice for Recorder {
        fn read(&mut self, _: u64, data: &mut [u8]) {
            data.fill(0x5a);
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.0.push((offset, data.to_vec()));
        }
    }

    fn buses() -> (Buses, Arc<Mutex<Recorder>>) {
        let recorder = Arc::new(Mutex::new(Recorder::default()));
        let mut buses = Buses {
            ports: Bus::new("port"),
            mmio: Bus::new("mmio"),
        };
        buses.ports.attach(0x100..0x110, recorder.clone());
        buses.mmio.attach(0xd000_0000..0xd000_1000, recorder.clone());
        (buses, recorder)
    }

    #[test]
    fn accesses_reach_the_buses_until_a_triple_fault() {
        let (buses, recorder) = buses();
        let mut vcpu = Scripted::new([
            Step::PortWrite(0x101, vec![1]),
            Step::MmioWrite(0xd000_0050, vec![2, 0, 0, 0]),
            Step::PortRead(0x100),
            Step::Shutdown,
        ]);

        let reason = run(&mut vcpu, 0, &buses, &StallCheck::new(1));

        assert_eq!(reason, ExitReason::TripleFault);
        assert_eq!(
            recorder.lock().unwrap().0,
            [(1, vec![1]), (0x50, vec![2, 0, 0, 0])]
        );
        assert_eq!(vcpu.buffer[0], 0x5a);
    }

    #[test]
    fn a_vcpu_that_stays_halted_ends_the_guest_and_one_that_does_not_goes_on() {
        let (buses, _) = buses();
        let run = |halted| {
            let stall = StallCheck::new(1);
            stall.begin_round();
            assert!(!stall.look(0, true));
            stall.begin_round();
            run(
                &mut Scripted::new([Step::Interrupted { halted }, Step::Failed]),
                0,
                &buses,
                &stall,
            )
        };

        assert_eq!(run(true), ExitReason::Halted);
        assert_eq!(run(false), ExitReason::Crashed("KVM_EXIT_UNKNOWN".to_owned()));
    }

    #[test]
    fn what_kvm_cannot_do_ends_the_guest_with_its_words() {
        let (buses, _) = buses();

        let reason = run(&mut Scripted::new([Step::Failed]), 0, &buses, &StallCheck::new(1));

        assert_eq!(reason, ExitReason::Crashed("KVM_EXIT_UNKNOWN".to_owned()));
    }
}
