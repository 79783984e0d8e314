//! Interrupts as fast as there can be: of the timers, of the processor to itself, and halts that race with them.

use crate::interrupts;
use crate::machine::Machine;
use crate::memory;
use crate::processor::{self, port_write};
use crate::random::Random;

const LOCAL_APIC: u64 = 0xfee0_0000;
const SPURIOUS: u64 = 0xf0;
const COMMAND: u64 = 0x300;
const TIMER: u64 = 0x320;
const TIMER_COUNT: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;

const ENABLED: u32 = 0x1ff;
const PERIODIC: u32 = 1 << 17;
const TO_SELF: u32 = 1 << 18;

pub(super) fn round(_: &mut Machine, random: &mut Random) {
    let before = interrupts::count();
    interrupts::take();
    memory::write(LOCAL_APIC + SPURIOUS, ENABLED);
    // PIT, channel 0, mode 2 or 0, and a low divisor.
    port_write(0x43, random.pick(&[0x34_u8, 0x30]));
    port_write(0x40, random.word8() % 4 + 1);
    port_write(0x40, 0_u8);
    memory::write(LOCAL_APIC + TIMER_DIVIDE, 0xb_u32);
    memory::write(LOCAL_APIC + TIMER, 0x40 | random.pick(&[0, PERIODIC]));
    memory::write(LOCAL_APIC + TIMER_COUNT, random.pick(&[1_u32, 10, 1000]));
    for _ in 0..2000 {
        let vector = 0x50 + random.word32() % 0xa0;
        memory::write(LOCAL_APIC + COMMAND, TO_SELF | vector);
        if random.once_in(8) {
            processor::let_interrupts_in();
        }
    }
    for _ in 0..200 {
        interrupts::wait_for_timer(random);
    }
    processor::let_interrupts_in();
    interrupts::quiet();
    assert!(interrupts::count() > before, "no interrupt has come");
}
