//! What attacks have at hand, and how the devices are seen to work after them.

use crate::command_line::Orders;
use crate::processor::pause;
use crate::serial;
use crate::transport::Transport;
use crate::vsock::{Fault, Vsock};

/// Where the parent listens for heartbeats, and what it must send back.
const HEARTBEAT_PORT: u32 = 9000;
const HEARTBEAT: u8 = 0xb7;

/// How long is waited where nobody listens yet, in looks.
const BETWEEN_CALLS: u32 = 1_000_000;

/// Bytes that are echoed to prove that vsock works.
const PROOF: u32 = 64 << 10;

/// The devices of the machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) vsock: Vsock,
    pub(crate) nsm: Transport,
    /// The port of the parent at which somebody echoes.
    pub(crate) echo: u32,
}

impl Machine {
    /// The machine that the orders tell of, with its devices started.
    pub(crate) fn new(orders: &Orders<'_>) -> Self {
        Self {
            vsock: Vsock::new(orders.devices[0]),
            nsm: Transport::at(orders.devices[1]),
            echo: orders.echo,
        }
    }

    /// Tells the parent that the enclave has booted.
    pub(crate) fn send_heartbeat(&mut self) {
        self.exchange(HEARTBEAT_PORT, 1, |_| HEARTBEAT);
    }

    /// Resets vsock and has the parent echo, so often until it does.
    pub(crate) fn prove(&mut self) {
        self.vsock.start();
        self.exchange(self.echo, PROOF, pattern);
    }

    fn exchange(&mut self, port: u32, bytes: u32, byte: impl Fn(u32) -> u8) {
        let mut told = None;
        while let Err(fault) = self.vsock.exchange(port, bytes, &byte) {
            if told != Some(fault) {
                serial::line(format_args!("port {port}: {fault:?}; once more"));
                told = Some(fault);
            }
            if fault == Fault::Refused {
                (0..BETWEEN_CALLS).for_each(|_| pause());
            } else {
                self.vsock.start();
            }
        }
    }
}

/// What is echoed.
fn pattern(index: u32) -> u8 {
    let mixed = index.wrapping_mul(0x9e37_79b9) >> 16;
    mixed.to_le_bytes()[0]
}
