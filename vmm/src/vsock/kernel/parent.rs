//! Which CID a guest's connections mean by "parent", and what is the guest's share of ports that it shares with others.
//!
//! The kernel's host is CID 2. To the guest, its parent is CID 3, as on EC2, unless the guest itself has connected to CID 2, which
//! means the parent as well: then all of that connection says 2.

use std::collections::HashSet;

use vsock_device::{HEADER_SIZE, HOST_CID, Header, Operation, PARENT_CID};

/// Connections to CID 2 that a guest may have. More are answered from CID 3, which the guest refuses.
const MOST: usize = 4096;

/// Ports of the parent at which all enclaves of the machine call the same listener, the daemon's (`api::HEARTBEAT_PORT`,
/// `api::APPLICATION_END_PORT`), and calls of one guest that may wait there. A guest needs one; more are not let through, so that
/// there is room for the others'.
const SHARED_PORTS: [u32; 2] = [api::HEARTBEAT_PORT, api::APPLICATION_END_PORT];
const MOST_CALLS: u32 = 4;

/// The ports of a connection: the guest's, the parent's.
type Ports = (u32, u32);

/// The connections that a guest has made to CID 2, and how many of its calls wait at each shared port.
#[derive(Debug, Default)]
pub(super) struct Parent {
    called_host: HashSet<Ports>,
    calls: [u32; SHARED_PORTS.len()],
}

impl Parent {
    /// Makes a header of the guest's what the kernel is to see. Whether the kernel is to see it at all.
    pub(super) fn rewrite_for_kernel(&mut self, bytes: &mut [u8; HEADER_SIZE]) -> bool {
        let mut header = Header::decode(bytes);
        let ports = (header.src_port, header.dst_port);
        let is_request = header.operation == Operation::Request as u16;
        if is_request && !self.may_call(header.dst_port) {
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

    /// Makes a header of the kernel's what the guest is to see.
    pub(super) fn rewrite_for_guest(&mut self, bytes: &mut [u8; HEADER_SIZE]) {
        let mut header = Header::decode(bytes);
        let ports = (header.dst_port, header.src_port);
        self.answered(&header);
        if !self.called_host.is_empty() && self.called_host.contains(&ports) {
            self.end_with(&header, ports);
            return;
        }
        header.src_cid = PARENT_CID;
        *bytes = header.encode();
    }

    /// Counts a call, unless too many wait already.
    fn may_call(&mut self, port: u32) -> bool {
        let waiting = self.waiting_at(port);
        match waiting {
            Some(calls) if *calls >= MOST_CALLS => false,
            Some(calls) => {
                *calls += 1;
                true
            }
            None => true,
        }
    }

    /// A call no longer waits when it is accepted or refused.
    fn answered(&mut self, header: &Header) {
        let is_answer = [Operation::Response as u16, Operation::Reset as u16].contains(&header.operation);
        if let Some(calls) = self.waiting_at(header.src_port).filter(|_| is_answer) {
            *calls = calls.saturating_sub(1);
        }
    }

    fn waiting_at(&mut self, port: u32) -> Option<&mut u32> {
        let index = SHARED_PORTS.iter().position(|shared| *shared == port)?;
        self.calls.get_mut(index)
    }

    /// A connection has ended when either side says RST; nothing comes after it.
    fn end_with(&mut self, header: &Header, ports: Ports) {
        if header.operation == Operation::Reset as u16 {
            self.called_host.remove(&ports);
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
        assert!(parent.rewrite_for_kernel(&mut bytes));
        let seen = Header::decode(&bytes);
        assert_eq!((seen.src_cid, seen.src_port, seen.dst_port), (16, 1024, 80));
        assert_eq!((seen.len, seen.flags, seen.buf_alloc, seen.fwd_cnt), (7, 3, 5, 9));
        seen.dst_cid
    }

    fn received(parent: &mut Parent, operation: Operation) -> u64 {
        let mut bytes = header((HOST_CID, 80), (16, 1024), operation);
        parent.rewrite_for_guest(&mut bytes);
        Header::decode(&bytes).src_cid
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
            assert!(parent.rewrite_for_kernel(&mut bytes));
        }
        assert_eq!(parent.called_host.len(), MOST);
    }

    #[test]
    fn few_calls_wait_at_a_port_that_all_enclaves_share() {
        let parent = &mut Parent::default();
        let call = |parent: &mut Parent, port, operation| {
            let mut bytes = header((16, 1024), (PARENT_CID, port), operation);
            parent.rewrite_for_kernel(&mut bytes)
        };
        for port in SHARED_PORTS {
            for _ in 0..MOST_CALLS {
                assert!(call(parent, port, Operation::Request));
            }
            assert!(!call(parent, port, Operation::Request));
            assert!(call(parent, port, Operation::ReadWrite));
            for answer in [Operation::Response, Operation::Reset] {
                let mut bytes = header((HOST_CID, port), (16, 1024), answer);
                parent.rewrite_for_guest(&mut bytes);
                assert!(call(parent, port, Operation::Request));
                assert!(!call(parent, port, Operation::Request));
            }
        }
        for _ in 0..1000 {
            assert!(call(parent, 9002, Operation::Request));
        }
    }
}
