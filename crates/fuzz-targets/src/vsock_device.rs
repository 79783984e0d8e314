//! A guest's driver of the vsock device over Unix sockets that does anything: each input is a list of steps.
//!
//! ```text
//! 0 queue index address length flags next   a descriptor
//! 1 queue head                              offers a chain
//! 2 queue low high                          the number of chains offered
//! 3 queue                                   rings the doorbell
//! 4                                         the device has its turns
//! 5 place operation port length credit      a packet's header, from the guest to its parent
//! 6 low high bytes…                         a register or configuration space is written, four bytes
//! 7 low high width                          and read
//! 8                                         the device is reset and initialised
//! 9 low high bytes…                         four bytes of memory
//! ```

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use enclave_vmm::vsock::halves::{Vsock, VsockWorker};
use enclave_vmm::vsock::unix::{self, Endpoints, UnixVsockConfig};
use event_manager::{EventManager, SubscriberOps};
use tempfile::TempDir;
use virtio::{GuestMemory, MmioTransport};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vsock_device::{HEADER_SIZE, Header, Operation, PARENT_CID, SOCKET_STREAM};

const CID: u32 = 16;

/// Guest memory, and where its queues are: 16 KiB each.
const MEMORY: usize = 1 << 18;
const QUEUE_BYTES: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Then 64 places of 2 KiB for packets and buffers.
const PLACES: u64 = 0x1_0000;
const PLACE_BYTES: u64 = 0x800;
const SIZE: u16 = 256;

const RX: u64 = 0;
const TX: u64 = 1;

const WRITE: u16 = 2;

/// Steps of one input.
const MOST_STEPS: usize = 512;
/// Turns that the device is given at once; it always says that there is more while a guest keeps it busy.
const MOST_TURNS: usize = 64;

/// A port of the parent where somebody listens, and one where nobody does.
const SOMEBODY: u32 = 1;
const NOBODY: u32 = 2;

/// Whatever the driver has done: when it resets the device and behaves, the device does what it should.
pub(crate) fn check(input: &[u8]) {
    let mut guest = Guest::new();
    guest.initialise();
    let mut steps = Steps(input);
    for _ in 0..MOST_STEPS {
        if guest.step(&mut steps).is_none() {
            break;
        }
    }
    guest.initialise();
    guest.is_refused_by_nobody();
}

/// What is left of the input.
struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from(self.short()?) | u32::from(self.short()?) << 16)
    }
}

/// A machine of which nothing but the device is there.
struct Guest {
    memory: Arc<GuestMemory>,
    transport: MmioTransport<Vsock<Endpoints>>,
    events: EventManager<VsockWorker<Endpoints>>,
    /// The parent's side; nobody takes what comes there.
    _directory: TempDir,
    _listener: UnixListener,
}

impl Guest {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listen = |name: &str| UnixListener::bind(directory.path().join(name)).expect("listen");
        let config = UnixVsockConfig {
            guest_cid: CID,
            listener: listen("vsock.sock"),
            port_socket_prefix: directory.path().join("vsock.sock_"),
        };
        let listener = listen(&format!("vsock.sock_{SOMEBODY}"));
        let (device, worker) = unix::open(config).expect("a device");
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory");
        let memory = Arc::new(memory);
        let line = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let transport = MmioTransport::new(device, Arc::clone(&memory), line).expect("a transport");
        let mut events = EventManager::new().expect("an event loop");
        events.add_subscriber(worker);
        Self {
            memory,
            transport,
            events,
            _directory: directory,
            _listener: listener,
        }
    }

    fn step(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        match steps.byte()? % 10 {
            0 => self.describe_anything(steps)?,
            1 => self.offer(queue(steps.byte()?), steps.byte()?.into()),
            2 => self.put_short(queue(steps.byte()?) + AVAILABLE + 2, steps.short()?),
            3 => self.register(0x50, steps.byte()?.into()),
            4 => self.turns(),
            5 => self.plant_header(steps)?,
            6 => self
                .transport
                .write(u64::from(steps.short()? % 0x200), &steps.word()?.to_le_bytes()),
            7 => {
                let mut data = [0; 8];
                let offset = u64::from(steps.short()? % 0x200);
                let width = usize::from(steps.byte()? % 9);
                self.transport.read(offset, &mut data[..width]);
            }
            8 => self.initialise(),
            _ => {
                let address = u64::from(steps.short()?) * 4;
                self.put(address, &steps.word()?.to_le_bytes());
            }
        }
        Some(())
    }

    /// Addresses are places for packets, queues, the ends of memory, or far away; lengths are what fits or does not.
    fn describe_anything(&self, steps: &mut Steps<'_>) -> Option<()> {
        let queue = queue(steps.byte()?);
        let index = steps.byte()?;
        let address = match steps.byte()? {
            place @ 0..64 => self::place(place),
            near @ 64..128 => u64::from(near) * 0x100,
            end @ 128..192 => MEMORY as u64 - 160 + u64::from(end),
            far => (u64::MAX << (far - 192)).wrapping_add(0x20),
        };
        let length = match steps.byte()? {
            length @ 0..128 => u32::from(length),
            length @ 128..250 => u32::from(length - 127) * 64,
            length => u32::MAX << (u32::from(length) - 250),
        };
        let (flags, next) = (steps.byte()?.into(), steps.byte()?.into());
        self.describe(queue, index.into(), address, length, flags, next);
        Some(())
    }

    fn plant_header(&self, steps: &mut Steps<'_>) -> Option<()> {
        let place = place(steps.byte()?);
        let operation = u16::from(steps.byte()? % 10);
        let port = steps.byte()?;
        let length = steps.byte()?;
        let credit = steps.byte()?;
        let header = Header {
            operation,
            len: u32::from(length) * 16,
            flags: u32::from(credit % 4),
            buf_alloc: u32::from(credit) << (credit % 25),
            fwd_cnt: u32::from(credit).wrapping_neg() >> (credit % 32),
            ..to_parent(u32::from(port % 4), 1 + u32::from(port / 128))
        };
        self.put(place, &header.encode());
        Some(())
    }

    /// Resets the device and makes it work, with empty rings.
    fn initialise(&mut self) {
        self.register(0x70, 0);
        self.put(0, &[0; 3 * QUEUE_BYTES as usize]);
        for (register, value) in [(0x70, 3), (0x24, 0), (0x20, 0), (0x24, 1), (0x20, 1), (0x70, 0xb)] {
            self.register(register, value);
        }
        for index in 0..3_u32 {
            let base = index * u32::try_from(QUEUE_BYTES).expect("it is small");
            let registers = [
                (0x30, index),
                (0x38, SIZE.into()),
                (0x80, base),
                (0x90, base + u32::try_from(AVAILABLE).expect("it is small")),
                (0xa0, base + u32::try_from(USED).expect("it is small")),
                (0x44, 1),
            ];
            for (register, value) in registers {
                self.register(register, value);
            }
        }
        self.register(0x70, 0xf);
        let mut status = [0; 4];
        self.transport.read(0x70, &mut status);
        assert_eq!(status, [0xf, 0, 0, 0], "the device does not start");
        self.turns();
    }

    /// A call at a port where nobody listens is answered with RST, and both chains come back.
    fn is_refused_by_nobody(&mut self) {
        let request = Header {
            operation: Operation::Request as u16,
            ..to_parent(7, NOBODY)
        };
        self.put(place(0), &request.encode());
        let header = u32::try_from(HEADER_SIZE).expect("it is small");
        self.describe(TX * QUEUE_BYTES, 0, place(0), header, 0, 0);
        self.describe(RX * QUEUE_BYTES, 0, place(1), 1024, WRITE, 0);
        for queue in [RX, TX] {
            self.offer(queue * QUEUE_BYTES, 0);
            self.register(0x50, u32::try_from(queue).expect("it is small"));
        }
        self.turns();
        for queue in [RX, TX] {
            let used: u16 = self
                .memory
                .read_obj(GuestAddress(queue * QUEUE_BYTES + USED + 2))
                .expect("it is there");
            assert_eq!(used, 1, "chains returned on queue {queue}");
        }
        let mut answer = [0; HEADER_SIZE];
        self.memory
            .read_slice(&mut answer, GuestAddress(place(1)))
            .expect("it is there");
        let answer = Header::decode(&answer);
        assert_eq!(answer.operation, Operation::Reset as u16);
        assert_eq!((answer.src_port, answer.dst_port), (NOBODY, 7));
    }

    fn turns(&mut self) {
        for _ in 0..MOST_TURNS {
            if self.events.run_with_timeout(0).expect("an event loop") == 0 {
                break;
            }
        }
    }

    fn describe(&self, queue: u64, index: u64, address: u64, length: u32, flags: u16, next: u16) {
        let mut entry = [0; 16];
        entry[..8].copy_from_slice(&address.to_le_bytes());
        entry[8..12].copy_from_slice(&length.to_le_bytes());
        entry[12..14].copy_from_slice(&flags.to_le_bytes());
        entry[14..].copy_from_slice(&next.to_le_bytes());
        self.put(queue + index * 16, &entry);
    }

    fn offer(&self, queue: u64, head: u16) {
        let at = GuestAddress(queue + AVAILABLE + 2);
        let index: u16 = self.memory.read_obj(at).expect("it is there");
        self.put_short(queue + AVAILABLE + 4 + u64::from(index % SIZE) * 2, head);
        self.put_short(queue + AVAILABLE + 2, index.wrapping_add(1));
    }

    fn put_short(&self, address: u64, value: u16) {
        self.put(address, &value.to_le_bytes());
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        // What is beyond the end is not there.
        let _ = self.memory.write_slice(bytes, GuestAddress(address));
    }

    fn register(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }
}

fn queue(byte: u8) -> u64 {
    u64::from(byte % 3) * QUEUE_BYTES
}

fn place(byte: u8) -> u64 {
    PLACES + u64::from(byte % 64) * PLACE_BYTES
}

fn to_parent(from: u32, to: u32) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: PARENT_CID,
        src_port: from,
        dst_port: to,
        len: 0,
        socket_type: SOCKET_STREAM,
        operation: 0,
        flags: 0,
        buf_alloc: 1 << 16,
        fwd_cnt: 0,
    }
}
