//! A guest's driver of the vsock device over Unix sockets, and programs on the parent, that do anything. Steps beside those of
//! [`virtio_driver`](crate::virtio_driver):
//!
//! ```text
//!  9 place operation port length credit     a packet's header (see `vsock_packets`)
//! 10 length bytes…                          a client connects to the guest and writes this
//! 11 which length                           a client writes more
//! 12 which                                  a client goes
//! 13                                        a server takes the guest's next connection
//! ```

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};

use enclave_vmm::vsock::halves::Vsock;
use enclave_vmm::vsock::unix::{self, Endpoints, UnixVsockConfig};
use tempfile::TempDir;
use virtio_queue::desc::split::Descriptor;
use vsock_device::{HEADER_SIZE, Header, Operation};

use crate::virtio_driver::{Driver, STEPS, Steps, WRITE, memory, place};
use crate::vsock_packets::{CID, NOBODY, RX, SOMEBODY, TX, put_header, to_parent};

/// Programs on the parent that are connected at once, and those that call at all: fewer than wait at a listener.
const MOST_PEERS: usize = 8;
const MOST_CALLS: usize = 64;

/// Whatever the driver has done: when it resets the device and behaves, the device does what it should.
pub(crate) fn check(input: &[u8]) {
    let mut machine = Machine::new();
    machine.driver.initialise();
    Steps::each(input, |kind, steps| match kind % (STEPS + 5) {
        kind @ 0..STEPS => machine.driver.step(kind, steps),
        9 => put_header(&mut machine.driver, steps),
        10 => machine.connect(steps),
        11 => machine.write_more(steps),
        12 => machine.leave(steps),
        _ => {
            machine.accept();
            Some(())
        }
    });
    // Clients that have not been served yet are served to a guest that is gone.
    machine.peers.clear();
    for _ in 0..2 {
        machine.driver.initialise();
    }
    is_refused_by_nobody(&mut machine.driver);
}

/// A guest, and the parent's side of its device.
struct Machine {
    driver: Driver<Vsock<Endpoints>>,
    directory: TempDir,
    listener: UnixListener,
    peers: Vec<UnixStream>,
    calls: usize,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let listen = |name: &str| UnixListener::bind(directory.path().join(name)).expect("listen");
        let config = UnixVsockConfig {
            guest_cid: CID,
            listener: listen("vsock.sock"),
            port_socket_prefix: directory.path().join("vsock.sock_"),
        };
        let listener = listen(&format!("vsock.sock_{SOMEBODY}"));
        listener.set_nonblocking(true).expect("a listener");
        let (device, worker) = unix::open(config).expect("a device");
        Self {
            driver: Driver::new(memory(), device, worker),
            directory,
            listener,
            peers: Vec::new(),
            calls: 0,
        }
    }

    fn connect(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let length = usize::from(steps.byte()? % 64);
        let words = steps.bytes(length)?;
        if self.peers.len() < MOST_PEERS && self.calls < MOST_CALLS {
            self.calls += 1;
            let stream = UnixStream::connect(self.directory.path().join("vsock.sock"));
            self.add(stream.expect("a connection"), words);
        }
        Some(())
    }

    fn accept(&mut self) {
        if self.peers.len() < MOST_PEERS
            && let Ok((stream, _)) = self.listener.accept()
        {
            self.add(stream, b"welcome");
        }
    }

    fn add(&mut self, mut stream: UnixStream, words: &[u8]) {
        stream.set_nonblocking(true).expect("a socket");
        let _ = stream.write(words);
        self.peers.push(stream);
    }

    fn write_more(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let (which, length) = (usize::from(steps.byte()?), usize::from(steps.byte()?));
        let count = self.peers.len();
        if let Some(peer) = self.peers.get_mut(which.checked_rem(count).unwrap_or_default()) {
            // It may be gone, or full.
            let _ = peer.write(&vec![7; length * 64]);
        }
        Some(())
    }

    fn leave(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let which = usize::from(steps.byte()?);
        if let Some(which) = which.checked_rem(self.peers.len()) {
            self.peers.swap_remove(which);
        }
        Some(())
    }
}

/// A call at a port where nobody listens is answered with RST, and both chains come back.
fn is_refused_by_nobody(driver: &mut Driver<Vsock<Endpoints>>) {
    let request = Header {
        operation: Operation::Request as u16,
        ..to_parent(7, NOBODY)
    };
    driver.put(place(0), &request.encode());
    let header = u32::try_from(HEADER_SIZE).expect("it is small");
    driver.describe(TX, 0, Descriptor::new(place(0), header, 0, 0));
    driver.describe(RX, 0, Descriptor::new(place(1), 1024, WRITE, 0));
    for (queue, doorbell) in [(RX, 0), (TX, 1)] {
        driver.offer(queue, 0);
        driver.notify(doorbell);
    }
    driver.turns();
    for queue in [RX, TX] {
        assert_eq!(driver.returned(queue), 1, "chains returned on queue {queue}");
    }
    let answer = Header::decode(&driver.bytes(place(1)));
    assert_eq!(answer.operation, Operation::Reset as u16);
    assert_eq!((answer.src_port, answer.dst_port), (NOBODY, 7));
}
