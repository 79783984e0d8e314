//! The packets that a guest's vsock driver sends, whatever backend carries them.

use virtio::VirtioDevice;
use vsock_device::{HOST_CID, Header, PARENT_CID, SOCKET_STREAM};

use crate::virtio_driver::{Driver, Steps, place};

pub(crate) const CID: u32 = 16;

/// The queues.
pub(crate) const RX: usize = 0;
pub(crate) const TX: usize = 1;

/// A port of the parent where somebody listens, and one where nobody does.
pub(crate) const SOMEBODY: u32 = 1;
pub(crate) const NOBODY: u32 = 2;

/// Step `place operation port length credit`: a packet's header is put there, from the guest, mostly to its parent.
pub(crate) fn put_header<D: VirtioDevice>(driver: &mut Driver<D>, steps: &mut Steps<'_>) -> Option<()> {
    let place = place(steps.byte()?);
    let operation = u16::from(steps.byte()? % 10);
    let port = steps.byte()?;
    let length = steps.byte()?;
    let credit = steps.byte()?;
    let to = [SOMEBODY, NOBODY, api::HEARTBEAT_PORT, api::APPLICATION_END_PORT][usize::from(port / 64)];
    let header = Header {
        dst_cid: match port / 4 % 16 {
            0 => HOST_CID,
            1 => CID.into(),
            2 => u64::MAX,
            _ => PARENT_CID,
        },
        operation,
        len: u32::from(length) * 16,
        flags: u32::from(credit % 4),
        buf_alloc: u32::from(credit) << (credit % 25),
        fwd_cnt: u32::from(credit).wrapping_neg() >> (credit % 32),
        ..to_parent(u32::from(port % 4), to)
    };
    driver.put(place, &header.encode());
    Some(())
}

/// A packet without payload between two ports.
pub(crate) fn to_parent(from: u32, to: u32) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: PARENT_CID,
        src_port: from,
        dst_port: to,
        len: 0,
        socket_type: SOCKET_STREAM,
        operation: 0,
        flags: 0,
        buf_alloc: 1 << 16,
        fwd_cnt: 0,
    }
}
