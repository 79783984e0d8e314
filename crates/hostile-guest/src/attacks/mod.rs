//! The attacks, by name. Each does one round, after which anything may be broken but this kernel.

mod chains;
mod config;
mod credit;
mod endings;
mod floods;
mod hypercalls;
mod interrupts;
mod msrs;
mod nsm;
mod packets;
mod page_tables;
mod ports;
mod registers;
mod resets;
mod rings;
mod withheld;

pub(crate) use config::access_registers;

use crate::machine::Machine;
use crate::processor::pause;
use crate::random::Random;

/// One round of an attack.
pub(crate) type Round = fn(&mut Machine, &mut Random);

const ATTACKS: [(&str, Round); 19] = [
    ("none", |_, _| ()),
    ("rings", rings::round),
    ("packets", packets::round),
    ("credit", credit::round),
    ("floods", floods::round),
    ("resets", resets::round),
    ("config", config::round),
    ("nsm", nsm::round),
    ("ports", ports::round),
    ("registers", registers::round),
    ("msrs", msrs::round),
    ("withheld", withheld::round),
    ("hypercalls", hypercalls::round),
    ("page-tables", page_tables::round),
    ("interrupts", interrupts::round),
    ("run-registers", endings::run_registers),
    ("start-anew", endings::start_anew),
    ("system-management", endings::system_management),
    ("triple-fault", endings::triple_fault),
];

/// The attack of this name.
pub(crate) fn named(name: &str) -> Option<Round> {
    let found = ATTACKS.iter().find(|(known, _)| *known == name);
    found.map(|(_, round)| *round)
}

/// Gives the device some time.
fn wait(random: &mut Random) {
    let looks = random.pick(&[0, 100, 1_000, 10_000]);
    (0..looks).for_each(|_| pause());
}
