//! What ends the machine: there is nothing that its virtual machine monitor could do but say so.

use crate::machine::Machine;
use crate::memory;
use crate::processor;
use crate::random::Random;

const COMMAND: u64 = 0xfee0_0300;
const TO_SELF: u32 = 1 << 18;
const SYSTEM_MANAGEMENT: u32 = 0x200;
const INIT: u32 = 0x500;

/// Runs code where registers of devices are.
pub(super) fn run_registers(machine: &mut Machine, _: &mut Random) {
    processor::jump(machine.vsock.transport.base());
}

/// Starts this processor anew, where a machine with firmware has that.
pub(super) fn start_anew(_: &mut Machine, _: &mut Random) {
    memory::write(COMMAND, TO_SELF | INIT);
    wait_for_the_end();
}

/// Enters system management mode, for which nobody has put code anywhere.
pub(super) fn system_management(_: &mut Machine, _: &mut Random) {
    memory::write(COMMAND, TO_SELF | SYSTEM_MANAGEMENT);
    wait_for_the_end();
}

/// An exception without a handler.
pub(super) fn triple_fault(_: &mut Machine, _: &mut Random) {
    memory::clear(processor::IDT, 0x1000);
    processor::raise_exception();
}

fn wait_for_the_end() -> ! {
    loop {
        processor::halt();
    }
}
