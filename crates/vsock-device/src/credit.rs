//! Credit: who may send how much. One window for each direction of a stream.
//!
//! All counters count bytes since the stream began and wrap at 2³²; only their differences mean anything.

/// What the guest lets us send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendWindow {
    /// The guest's latest promise.
    buf_alloc: u32,
    /// What the guest has consumed.
    fwd_cnt: u32,
    /// What we have sent.
    sent: u32,
}

impl SendWindow {
    /// The window that the guest opens with its first packet. Nothing has been sent.
    pub(crate) fn new(buf_alloc: u32, fwd_cnt: u32) -> Self {
        Self {
            buf_alloc,
            fwd_cnt,
            sent: 0,
        }
    }

    /// Takes over the credit fields of a packet from the guest.
    pub(crate) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.buf_alloc = buf_alloc;
        self.fwd_cnt = fwd_cnt;
    }

    /// Bytes we may send now. None if the guest has shrunk its buffer below what is under way, or claims to have consumed
    /// more than was sent: such a guest stops its own stream and nothing else.
    pub(crate) fn available(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.fwd_cnt);
        self.buf_alloc.saturating_sub(under_way)
    }

    /// `length` bytes are being sent.
    pub(crate) fn send(&mut self, length: u32) {
        self.sent = self.sent.wrapping_add(length);
    }
}

/// What we let the guest send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveWindow {
    size: u32,
    /// What the guest has sent.
    received: u32,
    /// What the host stream has taken.
    forwarded: u32,
    /// The value of `forwarded` that the guest was told last.
    announced: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            size,
            received: 0,
            forwarded: 0,
            announced: 0,
        }
    }

    /// The promise: `buf_alloc` of our headers.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Bytes accepted from the guest that the host stream has not taken yet. Never more than the size.
    pub(crate) fn undelivered(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Takes `length` bytes from the guest, or refuses them because the guest had no credit for them.
    pub(crate) fn receive(&mut self, length: u32) -> bool {
        if length > self.size - self.undelivered() {
            return false;
        }
        self.received = self.received.wrapping_add(length);
        true
    }

    /// The host stream has taken `length` bytes, at most those undelivered.
    pub(crate) fn forward(&mut self, length: u32) {
        self.forwarded = self.forwarded.wrapping_add(length.min(self.undelivered()));
    }

    /// A packet to the guest is being made: its `fwd_cnt`.
    pub(crate) fn announce(&mut self) -> u32 {
        self.announced = self.forwarded;
        self.forwarded
    }

    /// Whether the guest sees little room where there is more: half the window or less. Often enough that a guest that
    /// sends all the time does not have to wait, seldom enough that updates stay few beside packets.
    ///
    /// A guest that has sent more than it was told it may, into room that was free, sees none.
    pub(crate) fn needs_announcement(&self) -> bool {
        let unannounced = self.received.wrapping_sub(self.announced);
        let seen = self.size.saturating_sub(unannounced);
        seen <= self.size / 2 && self.forwarded != self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn send_window_survives_lies() {
        let mut window = SendWindow::new(100, 0);
        window.send(60);
        assert_eq!(window.available(), 40);
        window.update(50, 0);
        assert_eq!(window.available(), 0);
        window.update(u32::MAX, 61);
        assert_eq!(window.available(), 0);
        window.update(100, 60);
        assert_eq!(window.available(), 100);
    }

    #[test]
    fn update_is_due_when_the_guest_sees_half_or_less() {
        let mut window = ReceiveWindow::new(100);
        assert!(window.receive(50));
        assert!(!window.needs_announcement(), "nothing has been freed");
        window.forward(1);
        assert!(window.needs_announcement());
        assert_eq!(window.announce(), 1);
        assert!(!window.needs_announcement());
    }

    proptest! {
        /// Both windows hold across the wrap of the counters: a sender that obeys is never refused, one byte more always is.
        #[test]
        fn sender_and_receiver_agree(
            start in prop_oneof![Just(0), Just(u32::MAX - 50), any::<u32>()],
            size in 1_u32..200,
            steps in prop::collection::vec((0_u32..100, 0_u32..100), 1..100),
        ) {
            let mut receiver = ReceiveWindow { size, received: start, forwarded: start, announced: start };
            let mut sender = SendWindow { buf_alloc: size, fwd_cnt: start, sent: start };
            for (send, forward) in steps {
                let mut overrun = receiver;
                prop_assert!(!overrun.receive(size - receiver.undelivered() + 1));
                let send = send.min(sender.available());
                sender.send(send);
                prop_assert!(receiver.receive(send));
                receiver.forward(forward);
                prop_assert!(receiver.undelivered() <= size);
                if receiver.needs_announcement() {
                    sender.update(size, receiver.announce());
                }
                prop_assert!(sender.available() > 0 || receiver.undelivered() > 0, "stuck with an empty buffer");
            }
        }
    }
}
