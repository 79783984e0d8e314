//! From a launch specification to a running guest, and the event loop that serves its devices until it ends.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

use api::vmm::{Event, ExitReason, Instruction, VsockBackend};
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use kvm_ioctls::{IoEventAddress, Kvm, VcpuFd, VmFd};
use virtio::{InterruptLine, MmioTransport};
use virtio_bindings::virtio_mmio::VIRTIO_MMIO_STATUS;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::{
    epoll::EventSet,
    eventfd::{EFD_NONBLOCK, EventFd},
};

use crate::{
    arch::{self, BootData, BootError, layout},
    bus::{Bus, BusDevice},
    control::{self, Control, ControlError, Launch},
    devices::{Absent, Console, I8042, Serial, SerialInterrupts},
    failure::LaunchError,
    load::{self, Loaded},
    log,
    memory::{self, ExclusiveMemory},
    nsm, privileges,
    probe::kvm_from,
    sandbox::{
        Class,
        filter::{Filter, Verdict},
        jail::lock_later_memory,
    },
    vcpu::{Buses, EndReporter, Placement, VcpuThreads},
    vsock::{
        kernel,
        unix::{self, UnixVsockConfig},
    },
};

/// How often vCPUs are asked whether they are halted for ever.
const STALL_CHECK: Duration = Duration::from_secs(1);

/// How many failed starts of a virtio device are logged.
const LOGGED_FAILURES: u32 = 8;

/// How long an unfinished console line may wait.
const CONSOLE_FLUSH: Duration = Duration::from_millis(100);

/// Receives a launch specification, runs the enclave and returns how it ended. From the guest's first instruction on, each thread
/// makes the system calls of its class alone; `verdict` is on others.
///
/// # Errors
/// Whatever keeps the enclave from starting; its [`api::Failure`] is what users see.
pub fn run(control: &Control<'_>, verdict: Verdict) -> Result<ExitReason, LaunchError> {
    let launch = control.receive_launch()?;
    privileges::limit_to_needs(&launch.spec).map_err(LaunchError::system("limiting memory and threads"))?;
    let (reasons, ends) = channel();
    let wake = EventFd::new(EFD_NONBLOCK).map_err(LaunchError::system("creating an eventfd"))?;
    let wake = Arc::new(wake);
    let end = EndReporter { reasons, wake };

    let Launch {
        spec,
        kvm,
        eif,
        vsock,
        nsm_listener,
        memory: files,
        console,
        vcpu_group,
    } = launch;
    let kvm = kvm_from(kvm);
    let vm = kvm.create_vm().map_err(BootError::kvm("KVM_CREATE_VM"))?;
    let vm = Arc::new(vm);
    arch::create_interrupt_controllers(&vm)?;
    arch::withhold_registers(&vm)?;
    let memory = memory::map(&spec.memory, files)?;
    lock_later_memory().map_err(LaunchError::system("locking memory"))?;
    memory::register(&vm, &memory)?;
    let ram = memory::size(&memory);

    let loaded = load::load(&File::from(eif), ExclusiveMemory::before_start(&memory), ram)?;
    if let Some((signature, _)) = &loaded.signature {
        control.send(&Event::Signed(signature.clone()));
    }
    control.send(&Event::Measured(to_api(&loaded)));

    let vsock = VsockEnd {
        guest_cid: spec.guest_cid,
        backend: spec.vsock,
        descriptor: vsock,
    };
    let console = Console::new(console.map(File::from));
    let memory = Arc::new(memory);
    let machine = Machine {
        vm: &vm,
        memory: &memory,
    };
    let (buses, workers) = machine.attach_devices(vsock, nsm_listener, &console, &end)?;
    let vcpus = boot_vcpus(&kvm, &vm, &memory, &loaded, &spec)?;
    let mut events = event_loop(workers.event_loop, control, &end)?;
    if loaded.signature.is_some() {
        control.wait_for_acceptance()?;
    }
    control.send(&Event::Started);
    let filter = Filter::of(Class::Vcpu, verdict)?;
    let place = Placement {
        cpu_ids: &spec.cpu_ids,
        group: vcpu_group.map(|group| Arc::new(File::from(group))),
    };
    let unix_sockets = spec.vsock == VsockBackend::Unix;
    start_vsock(
        workers.vsock,
        Filter::of(Class::Vsock { unix_sockets }, verdict)?,
        &end,
    )
    .map_err(LaunchError::system("starting the vsock device's thread"))?;
    let threads = VcpuThreads::start(vcpus, &place, &filter, &Arc::new(buses), &end)
        .map_err(LaunchError::system("starting vCPU threads"))?;
    Filter::of(Class::Devices, verdict)?.install()?;
    let tick = if spec.debug_mode {
        CONSOLE_FLUSH
    } else {
        STALL_CHECK
    };
    let reason = serve(&mut events, &threads, &console, &ends, tick)?;
    console.flush();
    Ok(reason)
}

/// The half of a device that the event loop runs.
type Worker = Box<dyn MutEventSubscriber>;

/// The half of a device that has a thread of its own, which returns only if it fails.
type OwnThread = Box<dyn FnOnce() -> io::Error + Send>;

/// What has to run for the devices of a machine to work.
struct Workers {
    event_loop: Vec<Worker>,
    vsock: OwnThread,
}

/// What the daemon has given for the guest's vsock.
struct VsockEnd {
    guest_cid: u32,
    backend: VsockBackend,
    /// A listener, or `/dev/vhost-vsock`.
    descriptor: OwnedFd,
}

/// What devices are attached to.
#[derive(Clone, Copy)]
struct Machine<'a> {
    vm: &'a Arc<VmFd>,
    memory: &'a Arc<GuestMemoryMmap>,
}

impl Machine<'_> {
    /// The buses with every device of the machine, and what the event loop runs of them.
    fn attach_devices(
        self,
        vsock: VsockEnd,
        nsm_listener: OwnedFd,
        console: &Console,
        end: &EndReporter,
    ) -> Result<(Buses, Workers), LaunchError> {
        let mut buses = Buses {
            ports: Bus::new("port"),
            mmio: Bus::new("mmio"),
        };
        let serial = Serial::new(interrupt_line(self.vm, layout::SERIAL_IRQ)?, console.clone())
            .map_err(LaunchError::system("creating an eventfd"))?;
        let serial = Arc::new(Mutex::new(serial));
        buses.ports.attach(layout::SERIAL_PORTS, serial.clone());
        let serial = SerialInterrupts::new(serial).map_err(LaunchError::system("creating a timer"))?;
        let end = end.clone();
        let keyboard = I8042::new(move || end.report(ExitReason::Reset));
        buses
            .ports
            .attach(layout::I8042_PORTS, Arc::new(Mutex::new(keyboard)));

        buses.ports.attach(layout::CMOS_PORTS, Arc::new(Absent));

        let vsock = self.attach_vsock(&mut buses.mmio, vsock)?;
        let (device, nsm) = nsm::open(nsm_listener).map_err(LaunchError::system("opening the NSM device"))?;
        self.attach_virtio(&mut buses.mmio, device, layout::NSM_WINDOW, layout::NSM_IRQ)?;
        let workers = Workers {
            event_loop: vec![Box::new(nsm), Box::new(serial)],
            vsock,
        };
        Ok((buses, workers))
    }

    fn attach_vsock(self, mmio: &mut Bus, end: VsockEnd) -> Result<OwnThread, LaunchError> {
        match end.backend {
            VsockBackend::Unix => {
                let halves = unix::open(UnixVsockConfig {
                    guest_cid: end.guest_cid,
                    listener: UnixListener::from(end.descriptor),
                    port_socket_prefix: PathBuf::from("vsock.sock_"),
                });
                let (device, worker) = halves.map_err(LaunchError::system("opening the vsock device"))?;
                self.attach_virtio(mmio, device, layout::VSOCK_WINDOW, layout::VSOCK_IRQ)?;
                Ok(Box::new(move || worker.serve()))
            }
            VsockBackend::Kernel => {
                let halves = kernel::open(end.guest_cid, File::from(end.descriptor), self.memory);
                let (device, worker) = halves.map_err(LaunchError::vhost(end.guest_cid))?;
                self.attach_virtio(mmio, device, layout::VSOCK_WINDOW, layout::VSOCK_IRQ)?;
                Ok(Box::new(move || worker.serve()))
            }
        }
    }

    /// Puts a virtio device into its window, with doorbells that no vCPU waits for.
    fn attach_virtio<D: virtio::VirtioDevice + 'static>(
        self,
        mmio: &mut Bus,
        device: D,
        window: Range<u64>,
        interrupt: u32,
    ) -> Result<(), LaunchError> {
        let line = Line {
            vm: Arc::clone(self.vm),
            number: interrupt,
        };
        let transport = MmioTransport::new(device, self.memory.clone(), line)
            .map_err(io::Error::other)
            .map_err(LaunchError::system("creating a virtio transport"))?;
        for (queue, doorbell) in transport.doorbells() {
            let address = IoEventAddress::Mmio(window.start + virtio::QUEUE_NOTIFY_OFFSET);
            self.vm
                .register_ioevent(doorbell, &address, queue)
                .map_err(BootError::kvm("KVM_IOEVENTFD"))?;
        }
        let device = VirtioWindow {
            transport,
            failures: log::Limited::new(LOGGED_FAILURES),
        };
        mmio.attach(window, Arc::new(device));
        Ok(())
    }
}

/// A virtio device on the MMIO bus.
struct VirtioWindow<D: virtio::VirtioDevice> {
    transport: MmioTransport<D>,
    failures: log::Limited,
}

impl<D: virtio::VirtioDevice> BusDevice for VirtioWindow<D> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.transport.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.transport.write(offset, data);
        // Only the driver's DRIVER_OK can fail; the other registers must not wait for the transport's lock.
        if offset == u64::from(VIRTIO_MMIO_STATUS)
            && let Some(error) = self.transport.take_activation_error()
        {
            let why = log::chain(&error);
            self.failures
                .line(format_args!("a virtio device was not started: {why}"));
        }
    }
}

/// A line of the interrupt controllers that is raised at once.
///
/// An eventfd (irqfd) would be raised by a worker of the kernel's: lines that go through the I/O APIC cannot be from where it is
/// written (`kvm_arch_set_irq_inatomic` in arch/x86/kvm/irq_comm.c). That costs two switches between threads for each interrupt, two
/// system calls more cost less.
struct Line {
    vm: Arc<VmFd>,
    number: u32,
}

impl InterruptLine for Line {
    fn pulse(&self) {
        for level in [true, false] {
            // Fails only for a number that there is not.
            let _ = self.vm.set_irq_line(self.number, level);
        }
    }
}

/// An eventfd that raises `line` of the interrupt controllers.
fn interrupt_line(vm: &VmFd, line: u32) -> Result<EventFd, LaunchError> {
    let event = EventFd::new(EFD_NONBLOCK).map_err(LaunchError::system("creating an eventfd"))?;
    vm.register_irqfd(&event, line)
        .map_err(BootError::kvm("KVM_IRQFD"))?;
    Ok(event)
}

/// Creates the vCPUs and writes what they find when they start.
fn boot_vcpus(
    kvm: &Kvm,
    vm: &VmFd,
    memory: &GuestMemoryMmap,
    loaded: &Loaded,
    spec: &api::vmm::LaunchSpec,
) -> Result<Vec<VcpuFd>, LaunchError> {
    let data = BootData {
        kernel: &loaded.kernel,
        cmdline: &loaded.cmdline,
        initrd: loaded.initrd,
        ram: memory::size(memory),
        vcpus: spec.cpu_ids.len(),
    };
    arch::write_boot_data(memory, &data)?;
    let vcpus: Result<Vec<_>, _> = (0..)
        .zip(&spec.cpu_ids)
        .map(|(number, _)| vm.create_vcpu(number))
        .collect();
    let vcpus = vcpus.map_err(BootError::kvm("KVM_CREATE_VCPU"))?;
    arch::configure_vcpus(kvm, &vcpus, spec.threads_per_core, loaded.kernel.entry)?;
    Ok(vcpus)
}

type EventLoop<'a> = EventManager<Box<dyn MutEventSubscriber + 'a>>;

/// The event loop of the main thread: devices, the end of the guest, the daemon.
fn event_loop<'a>(
    workers: Vec<Worker>,
    control: &'a Control<'_>,
    end: &EndReporter,
) -> Result<EventLoop<'a>, LaunchError> {
    let failed = |error: event_manager::Error| LaunchError::System {
        what: "creating the event loop",
        source: io::Error::other(error.to_string()),
    };
    let mut events = EventLoop::new().map_err(failed)?;
    for worker in workers {
        events.add_subscriber(worker);
    }
    events.add_subscriber(Box::new(DaemonWatch {
        socket: control.as_fd(),
        end: end.clone(),
    }));
    events.add_subscriber(Box::new(EndWatch {
        wake: end.wake.clone(),
    }));
    Ok(events)
}

/// The thread that serves the vsock device, held by `filter`.
fn start_vsock(worker: OwnThread, filter: Filter, end: &EndReporter) -> io::Result<()> {
    let end = end.clone();
    let body = move || {
        let why = match filter.install() {
            Ok(()) => format!("the vsock device cannot wait: {}", worker()),
            Err(error) => log::chain(&error),
        };
        end.report(ExitReason::Crashed(why));
    };
    // It ends with the process.
    std::thread::Builder::new()
        .name("vsock".to_owned())
        .spawn(body)
        .map(drop)
}

/// Serves events until a reason to end arrives.
fn serve(
    events: &mut EventLoop<'_>,
    threads: &VcpuThreads,
    console: &Console,
    ends: &Receiver<ExitReason>,
    tick: Duration,
) -> Result<ExitReason, LaunchError> {
    let timeout = i32::try_from(tick.as_millis()).unwrap_or(i32::MAX);
    let mut last_check = Instant::now();
    loop {
        events
            .run_with_timeout(timeout)
            .map_err(|error| LaunchError::System {
                what: "waiting for events",
                source: io::Error::other(error.to_string()),
            })?;
        if let Ok(reason) = ends.try_recv() {
            return Ok(reason);
        }
        console.flush();
        if last_check.elapsed() >= STALL_CHECK {
            threads.check_stall();
            last_check = Instant::now();
        }
    }
}

/// Ends the enclave when the daemon's end of the control socket closes before the enclave has booted: there is nobody it
/// belongs to. Once the daemon says so, the enclave outlives it, and the socket is watched no more.
struct DaemonWatch<'a> {
    socket: BorrowedFd<'a>,
    end: EndReporter,
}

impl MutEventSubscriber for DaemonWatch<'_> {
    fn process(&mut self, _: Events, ops: &mut EventOps) {
        let end = match control::receive_instruction(self.socket) {
            Ok(None) => return,
            Ok(Some(Instruction::Outlive)) => None,
            Ok(Some(Instruction::Accept)) => Some(ExitReason::Crashed(
                "the daemon accepted the image a second time".to_owned(),
            )),
            Err(ControlError::Closed) => Some(ExitReason::Abandoned),
            Err(error) => Some(ExitReason::Crashed(log::chain(&error))),
        };
        drop(ops.remove(Events::empty_raw(self.socket.as_raw_fd())));
        if let Some(end) = end {
            self.end.report(end);
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        // The end of the other side is always told.
        let watched = ops.add(Events::new_raw(self.socket.as_raw_fd(), EventSet::IN));
        if let Err(error) = watched {
            log::line(format_args!("the control socket is not watched: {error}"));
        }
    }
}

/// Wakes the event loop when a vCPU thread or a device reports the end.
struct EndWatch {
    wake: Arc<EventFd>,
}

impl MutEventSubscriber for EndWatch {
    fn process(&mut self, _: Events, _: &mut EventOps) {
        // Only a wake-up; the reason is in the channel.
        drop(self.wake.read());
    }

    fn init(&mut self, ops: &mut EventOps) {
        if let Err(error) = ops.add(Events::new(&*self.wake, EventSet::IN)) {
            log::line(format_args!("the end of the guest is not watched: {error}"));
        }
    }
}

fn to_api(loaded: &Loaded) -> api::Measurements {
    let measurements = &loaded.measurements;
    api::Measurements {
        hash_algorithm: api::Measurements::HASH_ALGORITHM.to_owned(),
        pcr0: measurements.pcr0.to_string(),
        pcr1: measurements.pcr1.to_string(),
        pcr2: measurements.pcr2.to_string(),
        pcr8: loaded.signature.as_ref().map(|(_, pcr8)| pcr8.to_string()),
    }
}
