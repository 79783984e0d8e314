//! The socket to the daemon, and to the next one when that has ended.

use std::io;
use std::os::fd::OwnedFd;

use api::nsm::{MAX_RESPONSE_PACKET, RequestPacket, ResponsePacket};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

#[derive(Debug)]
pub(super) struct Channel {
    listener: OwnedFd,
    connection: Option<OwnedFd>,
    last_number: u64,
    packet: Vec<u8>,
}

impl Channel {
    pub(super) fn new(listener: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        Ok(Self {
            listener,
            connection: None,
            last_number: 0,
            packet: vec![0; MAX_RESPONSE_PACKET],
        })
    }

    /// A number that no request has had.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Takes the last of the connections that wait, if any does and the present one has ended: nobody takes the place of a
    /// daemon that is there.
    pub(super) fn accept(&mut self) -> Option<&OwnedFd> {
        if self.connection.is_some() {
            return None;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut is_new = false;
        while let Ok(connection) = rustix::net::accept_with(&self.listener, flags) {
            self.connection = Some(connection);
            is_new = true;
        }
        self.connection.as_ref().filter(|_| is_new)
    }

    /// Sends a request; whether it is on its way. If not, there will be an event: a new connection, or a response to a
    /// request that came before it.
    pub(super) fn send(&mut self, request: RequestPacket<'_>) -> bool {
        let Some(connection) = &self.connection else {
            return false;
        };
        match rustix::net::send(connection, &request.encode(), SendFlags::NOSIGNAL) {
            Ok(_) => true,
            Err(Errno::AGAIN) => false,
            Err(_) => {
                self.connection = None;
                false
            }
        }
    }

    /// The next response with the number of its request, if one is there.
    pub(super) fn receive(&mut self) -> Option<(u64, Vec<u8>)> {
        loop {
            let connection = self.connection.as_ref()?;
            let received = rustix::net::recv(connection, &mut self.packet[..], RecvFlags::TRUNC);
            match received {
                Ok((_, 1..)) => {}
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => continue,
                // The daemon is gone.
                Ok((_, 0)) | Err(_) => {
                    self.connection = None;
                    return None;
                }
            }
            // One that is cut, or too short, is no response.
            let packet = received.ok().and_then(|(_, length)| self.packet.get(..length));
            if let Some(response) = packet.and_then(ResponsePacket::decode) {
                return Some((response.number, response.response.to_vec()));
            }
        }
    }
}
