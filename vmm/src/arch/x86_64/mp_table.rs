//! The MP table (Intel MultiProcessor Specification 1.4): how a kernel without ACPI learns of processors, the I/O APIC
//! and the wiring of ISA interrupts.
//!
//! The floating pointer structure stands at the last KiB of conventional memory, one of the places where Linux looks
//! (`default_find_smp_config` in arch/x86/kernel/mpparse.c); the configuration table follows it.

use super::layout;

const FLOATING_POINTER_LEN: u8 = 16;
const SPEC_1_4: u8 = 4;
const APIC_VERSION: u8 = 0x14;
const ISA_BUS: u8 = 0;
const ISA_INTERRUPTS: u8 = 16;
const PROCESSOR_ENABLED: u8 = 1;
const PROCESSOR_BOOTSTRAP: u8 = 2;
const IO_APIC_ENABLED: u8 = 1;
const INTERRUPT_INT: u8 = 0;
const INTERRUPT_NMI: u8 = 1;
const INTERRUPT_EXTINT: u8 = 3;
const ALL_LOCAL_APICS: u8 = 0xff;

const ENTRY_PROCESSOR: u8 = 0;
const ENTRY_BUS: u8 = 1;
const ENTRY_IO_APIC: u8 = 2;
const ENTRY_INTERRUPT: u8 = 3;
const ENTRY_LOCAL_INTERRUPT: u8 = 4;

/// The most processors an 8-bit APIC id can name beside the I/O APIC.
pub(super) const MAX_VCPUS: u8 = 254;

/// Floating pointer and table for `vcpus` processors, to be placed at [`layout::MP_TABLE`].
pub(super) fn build(vcpus: u8) -> Vec<u8> {
    let entries = entries(vcpus);
    let mut table = floating_pointer();
    table.extend(header(&entries));
    table.extend(entries.concat());
    table
}

fn floating_pointer() -> Vec<u8> {
    let mut pointer = Vec::from(*b"_MP_");
    let table = u32::try_from(layout::MP_TABLE).unwrap_or(0) + u32::from(FLOATING_POINTER_LEN);
    pointer.extend(table.to_le_bytes());
    // Length in 16-byte units, revision, checksum, five feature bytes (0: a configuration table is present).
    pointer.extend([1, SPEC_1_4, 0, 0, 0, 0, 0, 0]);
    with_checksum(pointer, 10)
}

/// The checksum covers header and entries.
fn header(entries: &[Vec<u8>]) -> Vec<u8> {
    const HEADER_LEN: usize = 44;
    const CHECKSUM: usize = 7;
    let body = entries.concat();
    let length = u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX);
    let count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
    let mut header = Vec::from(*b"PCMP");
    header.extend(length.to_le_bytes());
    header.extend([SPEC_1_4, 0]);
    header.extend(*b"ENCLAVEDMICROVM     ");
    header.extend([0; 6]);
    header.extend(count.to_le_bytes());
    header.extend(layout::LOCAL_APIC.to_le_bytes());
    header.extend([0; 4]);
    let all = with_checksum([header, body].concat(), CHECKSUM);
    all.get(..HEADER_LEN).unwrap_or_default().to_vec()
}

fn entries(vcpus: u8) -> Vec<Vec<u8>> {
    let io_apic_id = vcpus;
    let mut entries: Vec<Vec<u8>> = (0..vcpus).map(processor).collect();
    entries.push([&[ENTRY_BUS, ISA_BUS][..], b"ISA   "].concat());
    let io_apic = [ENTRY_IO_APIC, io_apic_id, APIC_VERSION, IO_APIC_ENABLED];
    entries.push([io_apic, layout::IO_APIC.to_le_bytes()].concat());
    for irq in 0..ISA_INTERRUPTS {
        entries.push(vec![
            ENTRY_INTERRUPT,
            INTERRUPT_INT,
            0,
            0,
            ISA_BUS,
            irq,
            io_apic_id,
            irq,
        ]);
    }
    entries.push(vec![
        ENTRY_LOCAL_INTERRUPT,
        INTERRUPT_EXTINT,
        0,
        0,
        ISA_BUS,
        0,
        0,
        0,
    ]);
    entries.push(vec![
        ENTRY_LOCAL_INTERRUPT,
        INTERRUPT_NMI,
        0,
        0,
        ISA_BUS,
        0,
        ALL_LOCAL_APICS,
        1,
    ]);
    entries
}

fn processor(apic_id: u8) -> Vec<u8> {
    const FPU_AND_APIC: u32 = 0x201;
    const SIGNATURE: u32 = 0x600;
    let flags = if apic_id == 0 {
        PROCESSOR_ENABLED | PROCESSOR_BOOTSTRAP
    } else {
        PROCESSOR_ENABLED
    };
    let mut entry = vec![ENTRY_PROCESSOR, apic_id, APIC_VERSION, flags];
    entry.extend(SIGNATURE.to_le_bytes());
    entry.extend(FPU_AND_APIC.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

/// Sets the byte at `offset` so that all bytes add up to zero.
fn with_checksum(mut bytes: Vec<u8>, offset: usize) -> Vec<u8> {
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(checksum) = bytes.get_mut(offset) {
        *checksum = sum.wrapping_neg();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn both_structures_have_the_length_they_claim_and_add_up_to_zero() {
        for vcpus in [1, 2, 64, MAX_VCPUS] {
            let table = build(vcpus);
            let (pointer, configuration) = table.split_at(16);

            assert_eq!(sum(pointer), 0);
            assert_eq!(
                usize::from(u16::from_le_bytes([configuration[4], configuration[5]])),
                configuration.len()
            );
            assert_eq!(sum(configuration), 0);
            assert!(layout::MP_TABLE + (table.len() as u64) < layout::RESERVED_END);
        }
    }

    #[test]
    fn only_the_first_processor_is_the_bootstrap_processor() {
        let table = build(3);
        let flags: Vec<u8> = (0..3).map(|cpu| table[16 + 44 + cpu * 20 + 3]).collect();

        assert_eq!(flags, [3, 1, 1]);
    }
}
