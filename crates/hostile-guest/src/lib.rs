//! A kernel that attacks the machine it runs on: what hostile guests are tested with.
//!
//! It is booted as an EIF's kernel, in its ELF form. First it behaves: it sends the heartbeat, so that `run-enclave` succeeds,
//! and exchanges data with whoever echoes on the parent. Then it attacks, as its command line says, in rounds that depend on a
//! seed and their number alone. Then it resets its devices and shows that they work, and halts.
//!
//! ```text
//!   main ─► processor, interrupts ─► command_line ─► machine: heartbeat, echo ─► attacks ─► machine: echo
//!                                                       │
//!                               vsock ─► packet, queue ─┴─► transport ─► memory
//! ```
//!
//! Each line that it prints begins with `hostile-guest: `. `ready` means that it is about to attack, `survived` that it has, and
//! that its devices work; an exception or a panic of its own is told and resets the machine.
//!
//! Everything that attacks may be read and written at is guest memory that no Rust value is in (see `memory.rs`), so that only
//! `memory`, `processor` and `interrupts` need `unsafe`.

#![cfg_attr(not(test), no_std)]

mod attacks;
mod command_line;
mod companion;
mod interrupts;
mod machine;
mod memory;
mod packet;
mod processor;
mod queue;
mod random;
mod serial;
mod transport;
mod vsock;

use core::panic::PanicInfo;

use command_line::Orders;
use machine::Machine;
use random::Random;

/// Does what the command line behind the zero page says.
pub fn run(zero_page: u64) -> ! {
    processor::set_up();
    interrupts::set_up();
    interrupts::quiet();
    let mut text = [0; 2048];
    let orders = Orders::parse(command_line::copy(zero_page, &mut text));
    let mut machine = Machine::new(&orders);
    machine.send_heartbeat();
    machine.prove();
    serial::line(format_args!("ready for {}", orders.attack));
    attack(&mut machine, &orders);
    interrupts::quiet();
    machine.prove();
    serial::line(format_args!(
        "survived {} rounds of {}",
        orders.rounds, orders.attack
    ));
    loop {
        processor::halt_until_interrupt();
    }
}

fn attack(machine: &mut Machine, orders: &Orders<'_>) {
    let round = attacks::named(orders.attack);
    assert!(round.is_some(), "there is no attack {}", orders.attack);
    let round = round.unwrap_or(|_, _| ());
    if orders.companion {
        companion::start(orders);
    }
    let tell_every = (orders.rounds / 8).max(1);
    for number in orders.first..orders.first + orders.rounds {
        if number.is_multiple_of(tell_every) {
            serial::line(format_args!("round {number}"));
        }
        round(machine, &mut Random::of_round(orders.seed, number));
    }
    if orders.companion {
        companion::stop();
    }
}

/// Tells what went wrong in this kernel, and resets the machine.
pub fn fail(info: &PanicInfo<'_>) -> ! {
    serial::line(format_args!("{info}"));
    processor::reset_machine()
}
