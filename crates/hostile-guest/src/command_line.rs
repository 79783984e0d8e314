//! What the kernel is told: its attacks, and what the machine appends on where its devices are.
//!
//! ```text
//! attack=rings seed=1 rounds=500 echo=7100 virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6
//! ```

use crate::memory;

/// The longest command line that is looked at, in bytes.
const LONGEST: usize = 2048;

/// The field of the zero page with the address of the command line (`Documentation/arch/x86/zero-page.rst`).
const COMMAND_LINE_POINTER: u64 = 0x228;

/// Bytes of the command line.
pub(crate) type Text = [u8; LONGEST];

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Orders<'a> {
    /// Name of the attack.
    pub(crate) attack: &'a str,
    /// What all random numbers depend on.
    pub(crate) seed: u64,
    /// The first round.
    pub(crate) first: u64,
    /// How many rounds.
    pub(crate) rounds: u64,
    /// Whether a second processor disturbs meanwhile.
    pub(crate) companion: bool,
    /// The port of the parent at which somebody echoes.
    pub(crate) echo: u32,
    /// Register windows of the virtio devices, vsock first.
    pub(crate) devices: [u64; 2],
}

/// Copies the command line that the zero page names.
pub(crate) fn copy(zero_page: u64, text: &mut Text) -> &str {
    let start = u64::from(memory::read::<u32>(zero_page + COMMAND_LINE_POINTER));
    let mut length = 0;
    for (address, to) in (start..).zip(text.iter_mut()) {
        *to = memory::read(address);
        if *to == 0 {
            break;
        }
        length += 1;
    }
    core::str::from_utf8(&text[..length]).unwrap_or("")
}

impl<'a> Orders<'a> {
    /// Reads them from a command line; words that are not for this kernel are passed over.
    pub(crate) fn parse(line: &'a str) -> Self {
        let mut orders = Self {
            attack: "none",
            seed: 1,
            first: 0,
            rounds: 1,
            companion: false,
            echo: 0,
            devices: [0; 2],
        };
        let mut devices = orders.devices.iter_mut();
        for (key, value) in line
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
        {
            match key {
                "attack" => orders.attack = value,
                "seed" => orders.seed = value.parse().unwrap_or(1),
                "first" => orders.first = value.parse().unwrap_or(0),
                "rounds" => orders.rounds = value.parse().unwrap_or(1),
                "companion" => orders.companion = value == "yes",
                "echo" => orders.echo = value.parse().unwrap_or(0),
                "virtio_mmio.device" => {
                    if let (Some(device), Some(window)) = (devices.next(), window(value)) {
                        *device = window;
                    }
                }
                _ => {}
            }
        }
        orders
    }
}

/// The address in `4K@0xd0000000:5`.
fn window(device: &str) -> Option<u64> {
    let (_, place) = device.split_once("@0x")?;
    let (address, _) = place.split_once(':')?;
    u64::from_str_radix(address, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_devices_are_found_among_other_words() {
        let line = "console=ttyS0 quiet attack=rings seed=7 rounds=500 echo=7100 \
                    virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6";
        let orders = Orders::parse(line);
        assert_eq!((orders.attack, orders.seed, orders.rounds), ("rings", 7, 500));
        assert_eq!((orders.first, orders.echo), (0, 7100));
        assert_eq!(orders.devices, [0xd000_0000, 0xd000_1000]);
    }
}
