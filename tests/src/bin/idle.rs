//! Enclave application that says so and then does nothing. As the kernel's `/init` it is a guest that never sends its
//! heartbeat.

#![forbid(unsafe_code)]

fn main() {
    println!("idle: alive");
    end_to_end_tests::guest::idle();
}
