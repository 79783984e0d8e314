//! The device side of virtio-vsock without any input or output: packets and events in, packets and actions out.
//!
//! # The protocol (virtio 1.2, section 5.10)
//!
//! A vsock address is a CID, which names a machine, and a port. A *stream* connects a port of the guest with a port of the
//! parent, in order and without loss, like TCP. Every packet starts with a 44-byte header ([`Header`]) that carries both
//! addresses, so that all streams share one pair of virtqueues.
//!
//! ```text
//!   guest connects                        parent connects                 either side ends
//!   ──────────────                        ───────────────                 ────────────────
//!   REQUEST  ──►                               ◄── REQUEST                SHUTDOWN(send)      I send no more
//!            ◄── RESPONSE, or RST         RESPONSE, or RST ──►            SHUTDOWN(receive)   I read no more
//!   RW      ◄──►                          RW      ◄──►                    both ──► ◄── RST    the stream is over
//! ```
//!
//! **Credit.** Each side promises buffer space and says in every header how much it promised (`buf_alloc`) and how many
//! bytes it has consumed since the stream began (`fwd_cnt`, which wraps). A sender never has more bytes under way than were
//! promised. A receiver that has freed much of its buffer says so in a CREDIT_UPDATE if no other packet is going that way;
//! CREDIT_REQUEST asks for one.
//!
//! **Addresses.** An enclave knows its parent as CID 3, as on EC2; CID 2, which Linux calls the host, means the same. Answers
//! carry the CID the guest used. A guest may only speak as itself: packets from another source CID are dropped. Whatever is
//! addressed to somebody else, or is no stream, is answered with RST; an RST is never answered.
//!
//! # How to drive it
//!
//! [`Muxer`] knows every connection's state and decides *how many* bytes move; the bytes themselves never pass through here.
//! Its user owns the virtqueues and the host streams (one per connection) and
//!
//! 1. gives it every packet of the guest ([`Muxer::guest_packet`]) and does what the returned [`Action`] says;
//! 2. tells it what happens to host streams ([`Muxer::connected`], [`Muxer::delivered`], [`Muxer::readable`], …);
//! 3. for each free receive buffer of the guest asks for the [`Outgoing`] packet ([`Muxer::next_outgoing`]).
//!
//! # What is bounded
//!
//! The guest is hostile and the peers on the parent may be slow. Connections, unanswered packets and the bytes that the user
//! of a [`Muxer`] may have to buffer are all limited by [`Limits`]. Replies are not queued: a connection remembers *that* it
//! owes a reply, once. No operation looks at all connections.

#![forbid(unsafe_code)]

mod connection;
mod credit;
mod limits;
mod list;
mod muxer;
mod table;
mod wire;

pub use limits::Limits;
pub use muxer::{Action, Direction, Muxer, Outgoing};
pub use table::ConnectionId;
pub use wire::{HEADER_SIZE, HOST_CID, Header, Operation, PARENT_CID, SOCKET_STREAM, ShutdownFlags};
