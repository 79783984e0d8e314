//! Which CID a guest's connections mean by "parent".
//!
//! The kernel's host is CID 2. To the guest, its parent is CID 3, as on EC2, unless the guest itself has connected to CID 2, which
//! means the parent as well: then all of that connection says 2.

use std::collections::HashSet;

use vsock_device::{HEADER_SIZE, HOST_CID, Header, Operation, PARENT_CID};

/// Connections to CID 2 that a guest may have. More are answered from CID 3, which the guest refuses.
const MOST: usize = 4096;

/// The ports of a connection: the guest's, the parent's.
type Ports = (u32, u32);

/// The connections that a guest has made to CID 2.
#[derive(Debug, Default)]
pub(super) struct Parent {
    called_host: HashSet<Ports>,
}

impl Parent {
    /// A header of the guest's, as the kernel is to see it.
    pub(super) fn rewrite_for_kernel(&mut self, bytes: &mut [u8; HEADER_SIZE]) {
        let mut header = Header::decode(bytes);
        let ports = (header.src_port, header.dst_port);
        if header.dst_cid == PARENT_CID {
            header.dst_cid = HOST_CID;
            *bytes = header.encode();
        } else if header.dst_cid == HOST_CID {
            if header.operation == Operation::Request as u16 && self.called_host.len() < MOST {
                self.called_host.insert(ports);
            }
        } else {
            return;
        }
        self.end_with(&header, ports);
    }

    /// A header of the kernel's, as the guest is to see it.
    pub(super) fn rewrite_for_guest(&mut self, bytes: &mut [u8; HEADER_SIZE]) {
        let mut header = Header::decode(bytes);
        let ports = (header.dst_port, header.src_port);
        if !self.called_host.is_empty() && self.called_host.contains(&ports) {
            self.end_with(&header, ports);
            return;
        }
        header.src_cid = PARENT_CID;
        *bytes = header.encode();
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
        parent.rewrite_for_kernel(&mut bytes);
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
            parent.rewrite_for_kernel(&mut bytes);
        }
        assert_eq!(parent.called_host.len(), MOST);
    }
}
