//! Which CID a guest's connections mean by "parent", and what is the guest's share of ports that it shares with others.
//!
//! The kernel's host is CID 2. To the guest, its parent is CID 3, as on EC2, unless the guest itself has connected to CID 2, which
//! means the parent as well: then all of that connection says 2.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use vsock_device::{HEADER_SIZE, HOST_CID, Header, Operation, PARENT_CID};

/// Connections to CID 2 that a guest may have. More are answered from CID 3, which the guest refuses.
const MOST: usize = 4096;

/// Ports of the parent at which all enclaves of the machine call the same listener, the daemon's (`api::HEARTBEAT_PORT`,
/// `api::APPLICATION_END_PORT`). A guest needs one call at each in its life.
const SHARED_PORTS: [u32; 2] = [api::HEARTBEAT_PORT, api::APPLICATION_END_PORT];

/// The ports of a connection: the guest's, the parent's.
type Ports = (u32, u32);

/// The connections that a guest has made to CID 2.
#[derive(Debug, Default)]
pub(super) struct Parent {
    called_host: HashSet<Ports>,
}

/// How often a guest may still call at each shared port.
#[derive(Debug, Default)]
pub(super) struct SharedCalls([Calls; SHARED_PORTS.len()]);

impl Parent {
    /// Makes a header of the guest's what the kernel is to see. Whether the kernel is to see it at all: a call to a port must be one
    /// that the guest `may_call`.
    pub(super) fn rewrite_for_kernel(
        &mut self,
        bytes: &mut [u8; HEADER_SIZE],
        may_call: impl Fn(u32) -> bool,
    ) -> bool {
        let mut header = Header::decode(bytes);
        let ports = (header.src_port, header.dst_port);
        let is_request = header.operation == Operation::Request as u16;
        if is_request && !may_call(header.dst_port) {
            return false;
        }
        if header.dst_cid == PARENT_CID {
            header.dst_cid = HOST_CID;
            *bytes = header.encode();
        } else if header.dst_cid == HOST_CID && is_request && self.called_host.len() < MOST {
            self.called_host.insert(ports);
        }
        self.end_with(&header, ports);
        true
    }

    /// The CID that a packet of the kernel's comes from, as the guest is to see it. Its header is not always asked for.
    pub(super) fn source_cid(&mut self, header: impl FnOnce() -> [u8; HEADER_SIZE]) -> u64 {
        if self.called_host.is_empty() {
            return PARENT_CID;
        }
        let header = Header::decode(&header());
        let ports = (header.dst_port, header.src_port);
        if !self.called_host.contains(&ports) {
            return PARENT_CID;
        }
        self.end_with(&header, ports);
        HOST_CID
    }

    /// A connection has ended when either side says RST; nothing comes after it.
    fn end_with(&mut self, header: &Header, ports: Ports) {
        if header.operation == Operation::Reset as u16 {
            self.called_host.remove(&ports);
        }
    }
}

impl SharedCalls {
    /// Whether a call to this port is let through. Counts it if it is.
    pub(super) fn may_call(&mut self, port: u32) -> bool {
        let index = SHARED_PORTS.iter().position(|shared| *shared == port);
        let calls = index.and_then(|index| self.0.get_mut(index));
        calls.is_none_or(|calls| calls.spend(Instant::now()))
    }
}

/// What is left of a guest's share of a listener that others need as well: a few calls at once, and a few more as time goes by. How
/// many calls are answered is not counted, since the answers lie where the guest can forge them.
#[derive(Debug)]
struct Calls {
    left: u32,
    /// Since when there is no more than that.
    since: Option<Instant>,
}

impl Calls {
    const MOST: u32 = 4;
    const EVERY: Duration = Duration::from_secs(30);

    /// Whether there is a call left.
    fn spend(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs() / Self::EVERY.as_secs();
        let earned = u32::try_from(earned).unwrap_or(Self::MOST);
        self.left = self.left.saturating_add(earned).min(Self::MOST);
        if earned > 0 {
            self.since = Some(now);
        }
        let spent = self.left.checked_sub(1);
        self.left = spent.unwrap_or_default();
        spent.is_some()
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            left: Self::MOST,
            since: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(src: (u64, u32), dst: (u64, u32), operation: Operation) -> [u8; HEADER_SIZE] {
        Header {
            src_cid: src.0,
            dst_cid: dst.0,
            src_port: src.1,
            dst_port: dst.1,
            len: 7,
            socket_type: 1,
            operation: operation as u16,
            flags: 3,
            buf_alloc: 5,
            fwd_cnt: 9,
        }
        .encode()
    }

    fn sent(parent: &mut Parent, cid: u64, operation: Operation) -> u64 {
        let mut bytes = header((16, 1024), (cid, 80), operation);
        assert!(parent.rewrite_for_kernel(&mut bytes, |_| true));
        let seen = Header::decode(&bytes);
        assert_eq!((seen.src_cid, seen.src_port, seen.dst_port), (16, 1024, 80));
        assert_eq!((seen.len, seen.flags, seen.buf_alloc, seen.fwd_cnt), (7, 3, 5, 9));
        seen.dst_cid
    }

    fn received(parent: &mut Parent, operation: Operation) -> u64 {
        parent.source_cid(|| header((HOST_CID, 80), (16, 1024), operation))
    }

    #[test]
    fn the_parent_is_cid_3_unless_the_guest_has_called_it_2() {
        let parent = &mut Parent::default();
        assert_eq!(received(parent, Operation::Request), 3);
        assert_eq!(sent(parent, 3, Operation::Request), 2);
        assert_eq!(received(parent, Operation::Response), 3);
        assert_eq!(sent(parent, 2, Operation::Request), 2);
        assert_eq!(received(parent, Operation::Response), 2);
        assert_eq!(received(parent, Operation::Reset), 2);
        assert_eq!(received(parent, Operation::Request), 3);
    }

    #[test]
    fn the_guests_own_reset_ends_a_connection_too() {
        let parent = &mut Parent::default();
        sent(parent, 2, Operation::Request);
        sent(parent, 2, Operation::Reset);
        assert_eq!(received(parent, Operation::ReadWrite), 3);
    }

    #[test]
    fn other_cids_are_left_for_the_kernel_to_drop_and_what_is_kept_is_bounded() {
        let parent = &mut Parent::default();
        assert_eq!(sent(parent, 17, Operation::Request), 17);
        for port in 0..10_000 {
            let mut bytes = header((16, port), (HOST_CID, 80), Operation::Request);
            assert!(parent.rewrite_for_kernel(&mut bytes, |_| true));
        }
        assert_eq!(parent.called_host.len(), MOST);
    }

    #[test]
    fn a_call_that_may_not_be_made_is_not_seen_and_other_packets_are() {
        let parent = &mut Parent::default();
        let mut seen = |operation| {
            let mut bytes = header((16, 1024), (PARENT_CID, 80), operation);
            parent.rewrite_for_kernel(&mut bytes, |port| port != 80)
        };
        assert!(!seen(Operation::Request));
        assert!(seen(Operation::ReadWrite));
    }

    #[test]
    fn calls_at_a_port_that_all_enclaves_share_are_few() {
        let mut calls = SharedCalls::default();
        for port in SHARED_PORTS {
            assert_eq!((0..10).filter(|_| calls.may_call(port)).count(), 4);
        }
        assert!((0..1000).all(|_| calls.may_call(9002)));
    }

    #[test]
    fn calls_come_back_with_time_and_no_more_than_there_were() {
        let mut calls = Calls::default();
        let start = Instant::now();
        let mut spend = |seconds, times: u32| {
            let now = start + Duration::from_secs(seconds);
            (0..times).filter(|_| calls.spend(now)).count()
        };
        assert_eq!(spend(0, 10), 4);
        assert_eq!(spend(29, 10), 0);
        assert_eq!(spend(30, 10), 1);
        assert_eq!(spend(100, 1), 1);
        assert_eq!(spend(101, 10), 1);
        assert_eq!(spend(1_000_000, 10), 4);
    }
}
