//! One client connection at the level of messages: a request with its descriptors in, replies out.
//!
//! The frames are those of [`api::frame`]. Everything a client sends is bounded: length and number of descriptors here,
//! time by the caller.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::sync::Arc;

use api::frame::{self, FrameError, HEADER_LEN, MAX_REQUEST};
use api::{ErrorCode, Failure, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use crate::foreign::ForeignDescriptors;
use crate::places::Place;

/// No request takes more descriptors than one.
const MAX_DESCRIPTORS: usize = 1;

/// Bytes that a client may send after its request.
const MOST_UNASKED: usize = 1024;

/// The most descriptors that come at a time (`SCM_MAX_FD` of the kernel). All are received, since the kernel would close
/// those that are not right here (see [`crate::foreign`]).
const MOST_AT_A_TIME: usize = 253;

/// Why a request could not be received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The client connected and left without a word, as one does to see whether the daemon is there.
    #[error("no request")]
    Nothing,
    /// The client left in the middle of a message.
    #[error("the message ended after {received} of {expected} bytes")]
    Truncated {
        /// Bytes that came.
        received: usize,
        /// Bytes that were announced.
        expected: usize,
    },
    /// More descriptors came than any request has.
    #[error("more than {MAX_DESCRIPTORS} descriptor came with the message")]
    TooManyDescriptors,
    /// The bytes are no request.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

impl From<ReceiveError> for Failure {
    fn from(error: ReceiveError) -> Self {
        let code = match error {
            ReceiveError::Io(_) => ErrorCode::SocketError,
            _ => ErrorCode::InvalidCommand,
        };
        Self::caused_by(code, "The request could not be understood", &error)
    }
}

/// The one request of a connection and the descriptors that came with it.
///
/// # Errors
/// [`ReceiveError`].
pub(crate) async fn receive_request(
    stream: &UnixStream,
    place: &Arc<Place>,
) -> Result<(Request, ForeignDescriptors), ReceiveError> {
    let mut descriptors = ForeignDescriptors::none(place);
    let mut header = [0; HEADER_LEN];
    match receive_exact(stream, &mut header, &mut descriptors).await {
        Err(ReceiveError::Truncated { received: 0, .. }) => return Err(ReceiveError::Nothing),
        result => result?,
    }
    let mut body = vec![0; frame::body_len(header, MAX_REQUEST)?];
    receive_exact(stream, &mut body, &mut descriptors).await?;
    Ok((frame::decode(&body)?, descriptors))
}

async fn receive_exact(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut ForeignDescriptors,
) -> Result<(), ReceiveError> {
    let mut received = 0;
    while let Some(rest) = buffer.get_mut(received..).filter(|rest| !rest.is_empty()) {
        let length = stream
            .async_io(Interest::READABLE, || receive_some(stream, rest, descriptors))
            .await?;
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(ReceiveError::TooManyDescriptors);
        }
        if length == 0 {
            return Err(ReceiveError::Truncated {
                received,
                expected: buffer.len(),
            });
        }
        received += length;
    }
    Ok(())
}

/// Adds the descriptors that come along; the number of bytes.
fn receive_some(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut ForeignDescriptors,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_A_TIME))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = rustix::net::recvmsg(stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for received in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = received {
            descriptors.extend(rights);
        }
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        // There was room for all, so this process may not open more.
        return Err(rustix::io::Errno::MFILE.into());
    }
    Ok(message.bytes)
}

/// Sends one reply.
///
/// # Errors
/// If the client is gone, or the reply is too long for any frame (a bug: every part of a reply is bounded).
pub(crate) async fn send_reply(stream: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let bytes = frame::encode(reply).map_err(io::Error::other)?;
    stream.write_all(&bytes).await
}

/// Returns when the client has closed the connection. One that has only finished sending, as a pipe-like client may,
/// is still there. A little of what comes after the request is thrown away; a client that goes on sending, or passes descriptors,
/// is taken for gone, since it would keep this thread busy, or others with closing what it passes.
pub(crate) async fn hung_up(stream: &UnixStream, place: &Arc<Place>) {
    const ASK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
    let mut unasked = [0; MOST_UNASKED];
    let mut length = 0;
    loop {
        let Some(room) = unasked.get_mut(length..).filter(|room| !room.is_empty()) else {
            return;
        };
        if stream.readable().await.is_err() {
            return;
        }
        let mut descriptors = ForeignDescriptors::none(place);
        match stream.try_io(Interest::READABLE, || {
            receive_some(stream, room, &mut descriptors)
        }) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        if !descriptors.is_empty() {
            return;
        }
    }
    while !is_closed_both_ways(stream) {
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn is_closed_both_ways(stream: &UnixStream) -> bool {
    let mut state = [PollFd::new(stream, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let polled = rustix::event::poll(&mut state, Some(&at_once));
    polled.is_err() || state[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}
