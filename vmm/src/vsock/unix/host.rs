//! The parent's side of the device: every host stream, and what the muxer wants done with it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use virtio::GuestSlice;
use vmm_sys_util::epoll::EventSet;
use vsock_device::{Action, ConnectionId, Direction, Header, Limits, Muxer, Outgoing};

use super::Endpoints;
use super::client::{Clients, Line};
use super::connector::{Connector, Outcome};
use super::guest_io::Received;
use super::poller::{Poller, StreamTag, Token};
use super::stream::HostStream;

/// How often accepting is tried in one turn. As a rule it succeeds at once, and the next client is for another turn.
const ACCEPT_TURN: usize = 32;
/// Pause after the operating system has refused to accept, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Host {
    muxer: Muxer,
    /// The host stream of each connection, by its slot.
    streams: Vec<Option<HostStream>>,
    clients: Clients,
    connector: Connector,
    endpoints: Arc<Endpoints>,
    accepting: Accepting,
    /// The time of this turn.
    now: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    /// Nobody waits at the listener.
    Idle,
    /// Somebody may wait.
    Ready,
    /// Not before this time.
    Paused(Instant),
}

impl Host {
    /// A side without connections. The listener is watched already.
    pub(super) fn new(endpoints: Arc<Endpoints>) -> Self {
        Self {
            muxer: Muxer::new(endpoints.guest_cid, Limits::default()),
            streams: Vec::new(),
            clients: Clients::default(),
            connector: Connector::new(&endpoints.port_socket_prefix),
            endpoints,
            accepting: Accepting::Ready,
            now: Instant::now(),
        }
    }

    /// A turn begins.
    pub(super) fn set_time(&mut self, now: Instant) {
        self.now = now;
    }

    /// A packet from the guest, with `bytes` bytes in `payload`.
    pub(super) fn guest_packet(&mut self, header: &Header, payload: &[GuestSlice<'_>], bytes: usize) {
        let faults = self.muxer.faults();
        let action = self
            .muxer
            .guest_packet(header, u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.muxer.faults() != faults {
            self.note_fault("a packet that breaks the vsock protocol");
        }
        self.perform(action, payload);
    }

    /// Says what the guest has done wrong, unless it has done so often.
    pub(super) fn note_fault(&self, what: &str) {
        self.endpoints
            .complaints
            .line(format_args!("vsock: the guest has sent {what}"));
    }

    pub(super) fn has_outgoing(&self) -> bool {
        self.muxer.has_outgoing()
    }

    pub(super) fn next_outgoing(&mut self) -> Option<Outgoing> {
        self.muxer.next_outgoing()
    }

    pub(super) fn data_packet(&mut self, id: ConnectionId, length: usize) -> Option<Header> {
        self.muxer.data_packet(id, u32::try_from(length).ok()?)
    }

    /// Reads up to `limit` bytes of the stream of `id` into `parts`, which have room for them. Zero if there is nothing, or
    /// no more.
    pub(super) fn read(&mut self, id: ConnectionId, parts: &[GuestSlice<'_>], limit: usize) -> usize {
        let Some(stream) = stream_of(&mut self.streams, id) else {
            self.muxer.readable(id, false);
            return 0;
        };
        let action = match stream.read(parts, limit) {
            Ok(Received { bytes: 0, .. }) => {
                stream.reading_ended = true;
                if stream.hung_up {
                    self.muxer.closed_by_host(id, self.now)
                } else {
                    self.muxer.ended_by_host(id, Direction::FromHost, self.now)
                }
            }
            Ok(Received { bytes, cut }) => {
                // The socket is empty now; when it is not, there will be an event. Unless that was its last.
                if bytes < limit && !cut && !stream.peer_ended {
                    self.muxer.readable(id, false);
                }
                return bytes;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.muxer.readable(id, false);
                Action::None
            }
            Err(_) => self.muxer.closed_by_host(id, self.now),
        };
        self.perform(action, &[]);
        0
    }

    /// Something has happened to a host stream.
    pub(super) fn stream_event(&mut self, tag: StreamTag, events: EventSet) {
        let Some(stream) = self.streams.get_mut(tag.slot()).and_then(Option::as_mut) else {
            return;
        };
        if stream.token() != Token::Stream(tag) {
            return;
        }
        let id = stream.id;
        stream.hung_up |= events.contains(EventSet::HANG_UP);
        stream.peer_ended |= events.intersects(EventSet::READ_HANG_UP | EventSet::HANG_UP | EventSet::ERROR);
        if stream.hung_up && (stream.is_pending() || stream.reading_ended) {
            let action = self.muxer.closed_by_host(id, self.now);
            self.perform(action, &[]);
            return;
        }
        if !stream.reading_ended && events != EventSet::OUT {
            self.muxer.readable(id, true);
        }
        if events.intersects(EventSet::OUT | EventSet::HANG_UP | EventSet::ERROR) {
            let action = match stream.flush(&self.endpoints.poller) {
                Ok(flushed) => self
                    .muxer
                    .delivered(id, u32::try_from(flushed).unwrap_or(u32::MAX)),
                Err(_) => self.muxer.ended_by_host(id, Direction::ToHost, self.now),
            };
            self.perform(action, &[]);
        }
    }

    /// Somebody may be waiting at the listener.
    pub(super) fn listener_event(&mut self) {
        self.accepting = Accepting::Ready;
    }

    /// Accepts a client, if there is room for one.
    pub(super) fn accept(&mut self) {
        match self.accepting {
            Accepting::Idle => return,
            Accepting::Paused(until) if until > self.now => return,
            Accepting::Ready | Accepting::Paused(_) => {}
        }
        self.accepting = Accepting::Ready;
        for _ in 0..ACCEPT_TURN {
            if !self.has_room() {
                return;
            }
            match accept_with(
                &self.endpoints.listener,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok(socket) => {
                    let number = self.clients.add(socket, self.now);
                    self.hear_client(number, Poller::watch);
                    if self.is_told_of_the_next_client() {
                        self.accepting = Accepting::Idle;
                        return;
                    }
                }
                Err(Errno::AGAIN) => {
                    self.accepting = Accepting::Idle;
                    return;
                }
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => {
                    self.endpoints
                        .complaints
                        .line(format_args!("vsock: cannot accept a client: {error}"));
                    self.accepting = Accepting::Paused(self.now + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    /// Has the poller say whether another client waits. To try to accept one where there is none has the kernel make a socket and
    /// throw it away (`do_accept` in net/socket.c).
    fn is_told_of_the_next_client(&self) -> bool {
        let Endpoints { poller, listener, .. } = &*self.endpoints;
        poller.rename(listener, Token::Listener).is_ok()
    }

    /// Whether clients may be waiting and can be accepted at once.
    pub(super) fn has_more_to_accept(&self) -> bool {
        self.accepting == Accepting::Ready && self.has_room()
    }

    fn has_room(&self) -> bool {
        !self.clients.is_full() && !self.muxer.is_full()
    }

    /// A client has written something, or has gone.
    pub(super) fn client_event(&mut self, number: u64) {
        self.hear_client(number, Poller::rename);
    }

    /// Reads a client's line. `watch` tells the poller what to call its socket from now on.
    fn hear_client(&mut self, number: u64, watch: Watch) {
        let poller = &self.endpoints.poller;
        match self.clients.read(number) {
            Some(Line::Partial) => {
                let watched = self
                    .clients
                    .socket(number)
                    .map(|socket| watch(poller, socket, Token::Client(number)).is_ok());
                if watched != Some(true) {
                    self.clients.remove(number);
                }
            }
            Some(Line::Port(port)) => self.open_for_client(number, port, watch),
            Some(Line::Bad) => drop(self.clients.remove(number)),
            None => {}
        }
    }

    /// The client's socket becomes a host stream, and the guest is asked.
    fn open_for_client(&mut self, number: u64, port: u32, watch: Watch) {
        let Some(socket) = self.clients.remove(number) else {
            return;
        };
        let Some((id, host_port)) = self.muxer.open(port, self.now) else {
            return;
        };
        self.keep(HostStream::for_client(id, socket, host_port), watch);
    }

    /// What is due by now.
    pub(super) fn expire(&mut self) {
        while let Some(action) = self.muxer.expire(self.now) {
            self.perform(action, &[]);
        }
        self.clients.expire(self.now);
        for attempt in self.connector.due(self.now) {
            let outcome = self.connector.attempt(attempt, self.now);
            self.connection_outcome(attempt.id, outcome);
        }
    }

    /// When something is due next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let pause = match self.accepting {
            Accepting::Paused(until) => Some(until),
            Accepting::Idle | Accepting::Ready => None,
        };
        [
            self.muxer.next_deadline(),
            self.clients.next_deadline(),
            self.connector.next_round(),
            pause,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what the muxer wants. A write can end a stream, so one action may lead to another, but not to a third.
    fn perform(&mut self, first: Action, payload: &[GuestSlice<'_>]) {
        let mut action = first;
        loop {
            action = match action {
                Action::None => return,
                Action::Connect { id, port } => {
                    let outcome = self.connector.connect(id, port, self.now);
                    self.connection_outcome(id, outcome);
                    return;
                }
                Action::Established { id } => {
                    match stream_of(&mut self.streams, id).map(HostStream::accept) {
                        Some(Ok(())) => return,
                        Some(Err(_)) | None => self.muxer.closed_by_host(id, self.now),
                    }
                }
                Action::Write { id, length } => self.write(id, payload, length),
                Action::Shutdown { id, direction } => {
                    if let Some(stream) = stream_of(&mut self.streams, id) {
                        stream.shut_down(direction);
                    }
                    return;
                }
                Action::Close { id } => {
                    if let Some(entry) = self.streams.get_mut(id.slot() as usize) {
                        entry.take_if(|stream| stream.id == id);
                    }
                    return;
                }
            }
        }
    }

    fn write(&mut self, id: ConnectionId, payload: &[GuestSlice<'_>], length: u32) -> Action {
        let Some(stream) = stream_of(&mut self.streams, id) else {
            return self.muxer.closed_by_host(id, self.now);
        };
        match stream.write(&self.endpoints.poller, payload, length as usize) {
            Ok(0) => Action::None,
            Ok(written) => self.muxer.delivered(id, u32::try_from(written).unwrap_or(length)),
            Err(_) => self.muxer.ended_by_host(id, Direction::ToHost, self.now),
        }
    }

    fn connection_outcome(&mut self, id: ConnectionId, outcome: Outcome) {
        match outcome {
            Outcome::Connected(socket) => {
                if self.muxer.connected(id) {
                    self.keep(HostStream::for_guest(id, socket), Poller::watch);
                }
            }
            Outcome::Refused => self.muxer.refused(id),
            Outcome::Waiting => {}
        }
    }

    fn keep(&mut self, stream: HostStream, watch: Watch) {
        let (id, slot) = (stream.id, stream.id.slot() as usize);
        let watched = watch(&self.endpoints.poller, stream.socket(), stream.token());
        if self.streams.len() <= slot {
            self.streams.resize_with(slot + 1, || None);
        }
        if let Some(entry) = self.streams.get_mut(slot) {
            *entry = Some(stream);
        }
        if watched.is_err() {
            let action = self.muxer.closed_by_host(id, self.now);
            self.perform(action, &[]);
        }
    }
}

/// [`Poller::watch`] for a socket that is new, [`Poller::rename`] for one that is known.
type Watch = fn(&Poller, &std::os::fd::OwnedFd, Token) -> io::Result<()>;

/// The stream of connection `id`. Borrows the streams alone, so that the muxer can be used beside it.
fn stream_of(streams: &mut [Option<HostStream>], id: ConnectionId) -> Option<&mut HostStream> {
    streams
        .get_mut(id.slot() as usize)?
        .as_mut()
        .filter(|stream| stream.id == id)
}
