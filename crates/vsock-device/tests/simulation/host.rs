//! The parent's side: a socket with a small buffer each way, and an application at its end.

use std::collections::VecDeque;

use crate::pattern;

/// What a socket holds in each direction before it refuses more.
const SOCKET_BUFFER: usize = 200;

/// A host stream as its device sees it: what [`std::os::unix::net::UnixStream`] would do.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each end of each direction ends on its own"
)]
pub(crate) struct HostStream {
    /// The guest's port, which names the stream.
    pub(crate) port: u32,
    to_device: VecDeque<u8>,
    to_application: VecDeque<u8>,
    /// Bytes that the application has written and read.
    pub(crate) written: u32,
    pub(crate) read: u32,
    /// The application writes no more.
    pub(crate) write_shut_down: bool,
    pub(crate) application_closed: bool,
    /// The device has closed it, or ended its direction to the application.
    pub(crate) device_ended: bool,
    /// The device has closed it, or ended its direction from the application.
    pub(crate) device_deaf: bool,
    /// Kept by the device because the socket was full.
    pub(crate) buffered: VecDeque<u8>,
}

/// What a read gave.
pub(crate) enum Read {
    Bytes(Vec<u8>),
    Nothing,
    End,
}

impl HostStream {
    pub(crate) fn new(port: u32) -> Self {
        Self {
            port,
            to_device: VecDeque::new(),
            to_application: VecDeque::new(),
            written: 0,
            read: 0,
            write_shut_down: false,
            application_closed: false,
            device_ended: false,
            device_deaf: false,
            buffered: VecDeque::new(),
        }
    }

    pub(crate) fn application_writes(&mut self, length: u32) {
        if self.write_shut_down || self.application_closed || self.device_deaf {
            return;
        }
        let room = u32::try_from(SOCKET_BUFFER - self.to_device.len()).unwrap();
        for _ in 0..length.min(room) {
            self.to_device.push_back(pattern(self.port, self.written));
            self.written += 1;
        }
    }

    pub(crate) fn application_reads(&mut self, length: u32) {
        for _ in 0..length {
            let Some(byte) = self.to_application.pop_front() else {
                return;
            };
            assert_eq!(
                byte,
                pattern(self.port, self.read),
                "byte {} from the guest",
                self.read
            );
            self.read += 1;
        }
    }

    /// Whether the application has read everything up to the end of the stream.
    pub(crate) fn at_end(&self) -> bool {
        self.device_ended && self.to_application.is_empty()
    }

    pub(crate) fn device_reads(&mut self, limit: u32) -> Read {
        let length = self.to_device.len().min(limit as usize);
        if length > 0 {
            Read::Bytes(self.to_device.drain(..length).collect())
        } else if self.write_shut_down || self.application_closed {
            Read::End
        } else {
            Read::Nothing
        }
    }

    /// Takes what fits; `None` if nobody will ever read it.
    pub(crate) fn device_writes(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.application_closed {
            return None;
        }
        let length = bytes.len().min(SOCKET_BUFFER - self.to_application.len());
        self.to_application.extend(&bytes[..length]);
        Some(length)
    }

    pub(crate) fn has_news(&self) -> bool {
        !self.to_device.is_empty() || self.write_shut_down || self.application_closed
    }
}
