//! The built program between enclaves and servers. Unix sockets stand for the enclaves' vsock, as they do for enclaves
//! without the kernel's; what the kernel's own needs of a machine is said where a test is ignored.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod suite {
    mod command_line;
    mod inbound;
    mod outbound;
    mod proxy;
    mod vsock;
}
