//! A guest's driver of the security module's device, and a daemon, that do anything. Steps beside those of
//! [`virtio_driver`](crate::virtio_driver):
//!
//! ```text
//!  9                     a daemon connects, if none is there
//! 10                     it goes
//! 11                     it takes a request
//! 12 number low high     it answers: the last request but so many, with so many bytes
//! 13 length bytes…       it sends something else
//! ```

use std::os::fd::OwnedFd;

use api::nsm::{MAX_REQUEST, MAX_REQUEST_PACKET, RequestPacket, ResponsePacket};
use enclave_vmm::nsm::{self, Nsm};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind,
    connect, getsockname, listen, recv, send, socket_with,
};
use virtio_queue::desc::split::Descriptor;

use crate::virtio_driver::{Driver, STEPS, Steps, WRITE, memory, place};

/// Daemons of one input: fewer than wait at a listener.
const MOST_DAEMONS: i32 = 64;

/// Requests are numbered upwards and never longer than what may be sent, and when the driver resets the device and behaves, a request
/// is answered.
pub(crate) fn check(input: &[u8]) {
    let mut machine = Machine::new();
    machine.driver.initialise();
    Steps::each(input, |kind, steps| {
        match kind % (STEPS + 5) {
            kind @ 0..STEPS => machine.driver.step(kind, steps)?,
            9 => machine.connect(),
            10 => machine.daemon = None,
            11 => drop(machine.request()),
            12 => {
                let number = machine.last_number.wrapping_sub(u64::from(steps.byte()? / 64));
                machine.answer(number, usize::from(steps.short()? % 0x4000));
            }
            _ => {
                let length = steps.byte()?.into();
                machine.say(steps.bytes(length)?);
            }
        }
        Some(())
    });
    machine.daemon = None;
    machine.driver.initialise();
    machine.connects = 0;
    machine.connect();
    machine.answers_a_request();
}

/// A guest and its parent's daemon.
struct Machine {
    driver: Driver<Nsm>,
    address: SocketAddrAny,
    daemon: Option<OwnedFd>,
    connects: i32,
    /// Of the requests that a daemon has taken.
    last_number: u64,
}

impl Machine {
    fn new() -> Self {
        let listener = socket();
        // The kernel chooses a name, which is in no directory.
        bind(&listener, &SocketAddrUnix::new_unnamed()).expect("a name");
        let address = getsockname(&listener).expect("it has a name");
        listen(&listener, 2 * MOST_DAEMONS).expect("a listener");
        let (device, worker) = nsm::open(listener).expect("a device");
        Self {
            driver: Driver::new(memory(), device, worker),
            address,
            daemon: None,
            connects: 0,
            last_number: 0,
        }
    }

    fn connect(&mut self) {
        if self.daemon.is_none() && self.connects < MOST_DAEMONS {
            self.connects += 1;
            let daemon = socket();
            connect(&daemon, &self.address).expect("there is room");
            self.daemon = Some(daemon);
        }
    }

    /// What the guest asks, if it does: at most one byte more than it may.
    fn request(&mut self) -> Option<Vec<u8>> {
        let daemon = self.daemon.as_ref()?;
        let mut packet = vec![0; 2 * MAX_REQUEST_PACKET];
        let (_, length) = recv(daemon, &mut packet[..], RecvFlags::empty()).ok()?;
        if length == 0 {
            // The device does not close it but for another.
            return None;
        }
        let request = RequestPacket::decode(&packet[..length]).expect("a request");
        assert!(request.request.len() <= MAX_REQUEST + 1);
        assert!(request.number >= self.last_number, "it has been answered");
        self.last_number = request.number;
        Some(request.request.to_vec())
    }

    fn answer(&mut self, number: u64, length: usize) {
        let response = vec![9; length];
        let packet = ResponsePacket {
            number,
            response: &response,
        };
        self.say(&packet.encode());
    }

    fn say(&mut self, packet: &[u8]) {
        if let Some(daemon) = &self.daemon {
            // It may be full.
            let _ = send(daemon, packet, SendFlags::NOSIGNAL);
        }
    }

    /// Both chains of a pair come back, the second with the response.
    fn answers_a_request(&mut self) {
        self.driver.put(place(0), b"ping");
        self.driver.put(place(1), &[0; 64]);
        self.driver.describe(0, 0, Descriptor::new(place(0), 4, 0, 0));
        self.driver
            .describe(0, 1, Descriptor::new(place(1), 64, WRITE, 0));
        self.driver.offer(0, 0);
        self.driver.offer(0, 1);
        self.driver.notify(0);
        self.driver.turns();
        assert_eq!(self.request().as_deref(), Some(&b"ping"[..]));
        assert_eq!(self.driver.returned(0), 0, "before there is an answer");
        self.answer(self.last_number, 60);
        self.driver.turns();
        assert_eq!(self.driver.returned(0), 2, "chains returned");
        assert_eq!(self.driver.bytes(place(1)), [9; 60]);
        assert_eq!(self.driver.bytes(place(1) + 60), [0; 4]);
    }
}

fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).expect("a socket")
}
