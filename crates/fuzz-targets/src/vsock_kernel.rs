//! A guest's driver of the vsock device over the parent's kernel, and a kernel, that do anything. Steps beside those of
//! [`virtio_driver`](crate::virtio_driver):
//!
//! ```text
//!  9 place operation port length credit     a packet's header (see `vsock_packets`)
//! 10 ring                                   the kernel takes a chain and keeps it
//! 11 which                                  it returns a packet of the guest's
//! 12 which operation port length more       it writes a packet for the guest, and says to have written more
//! 13 ring low high written                  it returns a chain that it may not have
//! 14 ring                                   it calls for nothing
//! 15                                        the device is reset, and the kernel does not start
//! ```

use enclave_vmm::fuzzing::{Endpoints, open_vsock};
use enclave_vmm::vsock::halves::Vsock;
use virtio_queue::desc::split::Descriptor;
use vsock_device::{HEADER_SIZE, HOST_CID, Header, Operation, PARENT_CID};

use crate::fake_vhost::{FakeVhost, Way};
use crate::virtio_driver::{Driver, STEPS, Steps, WRITE, memory, place};
use crate::vsock_packets::{CID, RX, SOMEBODY, TX, put_header, to_parent};

/// Whatever driver and kernel have done, the kernel is only pointed at what it may reach (`fake_vhost`), the guest gets each chain
/// back once (`virtio_driver`), and when the driver resets the device and both behave, the device does what it should.
pub(crate) fn check(input: &[u8]) {
    let mut machine = Machine::new();
    machine.driver.initialise();
    Steps::each(input, |kind, steps| match kind % (STEPS + 7) {
        kind @ 0..STEPS => machine.driver.step(kind, steps),
        9 => put_header(&mut machine.driver, steps),
        10 => {
            machine.vhost.take(way(steps.byte()?));
            Some(())
        }
        11 => {
            machine.vhost.give_back(steps.byte()?.into());
            Some(())
        }
        12 => machine.deliver_anything(steps),
        13 => {
            let (way, head) = (way(steps.byte()?), u32::from(steps.short()?));
            machine.vhost.lie(way, head, steps.byte()?.into());
            Some(())
        }
        14 => {
            machine.vhost.call(way(steps.byte()?));
            Some(())
        }
        _ => {
            machine.vhost.refuse(true);
            assert!(!machine.driver.is_initialised(), "there is no vhost");
            machine.vhost.refuse(false);
            Some(())
        }
    });
    machine.driver.initialise();
    machine.carries_packets_both_ways();
}

/// A guest and its parent's kernel.
struct Machine {
    driver: Driver<Vsock<Endpoints<FakeVhost>>>,
    vhost: FakeVhost,
}

impl Machine {
    fn new() -> Self {
        let memory = memory();
        let mut vhost = None;
        let (device, worker) = open_vsock(CID, &memory, |all| {
            vhost.insert(FakeVhost::new(all, memory.clone())).clone()
        })
        .expect("a device");
        Self {
            driver: Driver::new(memory, device, worker),
            vhost: vhost.expect("it was made with the device"),
        }
    }

    fn deliver_anything(&self, steps: &mut Steps<'_>) -> Option<()> {
        let which = steps.byte()?;
        let operation = u16::from(steps.byte()? % 10);
        let port = steps.byte()?;
        let length = usize::from(steps.byte()?);
        let too_much = steps.byte()?;
        let header = Header {
            operation,
            src_port: u32::from(port / 64),
            ..to_guest(u32::from(port % 4))
        };
        let too_much = u32::from(too_much) << (too_much % 25);
        self.vhost
            .put(header, &vec![7; length * 16], which.into(), too_much);
        Some(())
    }

    /// The guest's packet goes to CID 2 and the kernel's comes from CID 3, and all three chains come back.
    fn carries_packets_both_ways(&mut self) {
        let (driver, vhost) = (&mut self.driver, &self.vhost);
        let request = Header {
            operation: Operation::ReadWrite as u16,
            len: 100,
            ..to_parent(7, SOMEBODY)
        };
        driver.put(place(0), &request.encode());
        let header = u32::try_from(HEADER_SIZE).expect("it is small");
        driver.describe(TX, 0, Descriptor::new(place(0), header + 100, 0, 0));
        driver.describe(RX, 0, Descriptor::new(place(1), 1024, WRITE, 0));
        for (queue, doorbell) in [(RX, 0), (TX, 1)] {
            driver.offer(queue, 0);
            driver.notify(doorbell);
        }
        driver.turns();
        let seen = Header {
            dst_cid: HOST_CID,
            ..request
        };
        assert_eq!(vhost.take(Way::ToKernel), Some((seen, 100)));
        vhost.give_back(0);

        let answer = Header {
            operation: Operation::ReadWrite as u16,
            ..to_guest(7)
        };
        assert!(vhost.put(answer, &[8; 50], 0, 0), "no buffer");
        driver.turns();
        for queue in [RX, TX] {
            assert_eq!(driver.returned(queue), 1, "chains returned on queue {queue}");
        }
        let read = Header::decode(&driver.bytes(place(1)));
        let expected = Header {
            src_cid: PARENT_CID,
            len: 50,
            ..answer
        };
        assert_eq!(read, expected);
        assert_eq!(driver.bytes(place(1) + HEADER_SIZE as u64), [8; 50]);
    }
}

fn way(byte: u8) -> Way {
    if byte.is_multiple_of(2) {
        Way::ToGuest
    } else {
        Way::ToKernel
    }
}

fn to_guest(port: u32) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: CID.into(),
        src_port: SOMEBODY,
        dst_port: port,
        ..to_parent(0, 0)
    }
}
