//! The daemon as its clients meet it: over the real socket, with scripted guests instead of VMMs.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test panics"
)]

mod audit;
#[path = "../common/mod.rs"]
mod common;
mod consoles;
mod ends;
mod events;
mod lifecycle;
mod logs;
mod protocol;
mod restart;
mod signed_images;
mod support;
