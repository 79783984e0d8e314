//! The built program between enclaves and servers. Unix sockets stand for the enclaves' vsock, as they do for enclaves
//! without the kernel's; with that, and with enclaves, it is tested in `tests/tests/vsock_proxy.rs`.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod suite {
    mod command_line;
    mod inbound;
    mod outbound;
    mod proxy;
}
