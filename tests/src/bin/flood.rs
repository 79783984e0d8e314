//! Enclave application: writes numbered lines to the console for ever.

#![forbid(unsafe_code)]

fn main() {
    end_to_end_tests::guest::flood_console();
}
