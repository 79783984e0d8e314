//! The VMM's end of its conversation with the daemon (`api::vmm`): one `SOCK_SEQPACKET` socket, standard input, and a file
//! for the last words when no daemon is there to hear them.

use std::{
    cell::OnceCell,
    fs::File,
    io::{self, IoSliceMut, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use api::vmm::{Event, Instruction, LaunchSpec, MAX_MESSAGE};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recv, recvmsg, send,
};

use crate::log;

/// The most descriptors a launch message carries.
const MAX_DESCRIPTORS: usize = 64;

/// Descriptors that every launch message carries, before memory and console.
const FIXED_DESCRIPTORS: usize = 5;

/// The longest instruction, in bytes.
const MAX_INSTRUCTION: usize = 256;

/// Why the daemon could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket failed, or standard input is no socket.
    #[error(
        "the control socket on standard input cannot be used; the daemon starts this program, users do not"
    )]
    Socket(#[from] io::Error),
    /// The daemon closed its end before it sent a launch message.
    #[error("the daemon is gone")]
    Closed,
    /// A message longer than the protocol allows.
    #[error("the launch message was cut")]
    Truncated,
    /// Not the expected JSON.
    #[error("the launch message is malformed")]
    Malformed(#[from] serde_json::Error),
    /// An instruction that is not due.
    #[error("the daemon sent {0:?} before it had accepted the image")]
    OutOfTurn(Instruction),
    /// Descriptors are missing or too many.
    #[error("the launch message needs {expected} descriptors and has {received}")]
    Descriptors {
        /// By its specification.
        expected: usize,
        /// What came.
        received: usize,
    },
}

/// The socket to the daemon.
#[derive(Debug)]
pub struct Control<'a> {
    socket: BorrowedFd<'a>,
    /// Where the last event goes as well. Comes with the launch message.
    outcome: OnceCell<File>,
}

/// Everything the daemon hands over, by name.
#[derive(Debug)]
pub struct Launch {
    /// What to run.
    pub spec: LaunchSpec,
    /// `/dev/kvm`.
    pub kvm: OwnedFd,
    /// The image.
    pub eif: OwnedFd,
    /// The listener behind `vsock.sock`, or `/dev/vhost-vsock`.
    pub vsock: OwnedFd,
    /// The listener to which the daemon connects for the NSM.
    pub nsm_listener: OwnedFd,
    /// One memfd per `spec.memory`.
    pub memory: Vec<OwnedFd>,
    /// Where console output goes, in debug mode.
    pub console: Option<OwnedFd>,
    /// The list of threads of the control group that has the CPUs, if there is one.
    pub vcpu_group: Option<OwnedFd>,
}

impl<'a> Control<'a> {
    /// A conversation over `socket`.
    pub fn new(socket: BorrowedFd<'a>) -> Self {
        Self {
            socket,
            outcome: OnceCell::new(),
        }
    }

    /// Waits for the launch message.
    pub fn receive_launch(&self) -> Result<Launch, ControlError> {
        let mut message = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            self.socket,
            &mut [IoSliceMut::new(&mut message)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(io::Error::from)?;
        if received.bytes == 0 {
            return Err(ControlError::Closed);
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(ControlError::Truncated);
        }
        let spec = serde_json::from_slice(message.get(..received.bytes).unwrap_or_default())?;
        let rights = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let (launch, outcome) = assign(spec, rights.flatten().collect())?;
        // Only one launch message is ever waited for.
        let _ = self.outcome.set(outcome.into());
        Ok(launch)
    }

    /// Tells the daemon. It may be gone; the enclave does not depend on it being told.
    pub fn send(&self, event: &Event) {
        let sent = serde_json::to_vec(event)
            .map_err(io::Error::from)
            .and_then(|message| send(self.socket, &message, SendFlags::NOSIGNAL).map_err(io::Error::from));
        if let Err(error) = sent {
            log::line(format_args!("the daemon could not be told of {event:?}: {error}"));
        }
    }

    /// Waits until the daemon has accepted the signature of the image. It does so or kills this process.
    ///
    /// # Errors
    /// [`ControlError::Closed`] if the daemon is gone, others if it cannot be understood.
    pub fn wait_for_acceptance(&self) -> Result<(), ControlError> {
        loop {
            match receive(self.socket, RecvFlags::empty())? {
                Some(Instruction::Accept) => return Ok(()),
                Some(other) => return Err(ControlError::OutOfTurn(other)),
                // A signal came first.
                None => {}
            }
        }
    }

    /// Tells the daemon, or the one that comes after it, the last event of this process.
    pub fn send_last(&self, event: &Event) {
        if let Some(mut outcome) = self.outcome.get() {
            let written = serde_json::to_vec(event)
                .map_err(io::Error::from)
                .and_then(|message| outcome.write_all(&message));
            if let Err(error) = written {
                log::line(format_args!("{event:?} could not be written down: {error}"));
            }
        }
        self.send(event);
    }
}

/// What has come from the daemon on `socket`, if anything; without waiting.
///
/// # Errors
/// [`ControlError::Closed`] if the daemon is gone, others if it cannot be understood.
pub fn receive_instruction(socket: BorrowedFd<'_>) -> Result<Option<Instruction>, ControlError> {
    receive(socket, RecvFlags::DONTWAIT)
}

/// The next instruction; `None` if none has come and `flags` say not to wait, or a signal interrupted that.
fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<Instruction>, ControlError> {
    let mut message = [0; MAX_INSTRUCTION];
    match recv(socket, &mut message[..], flags | RecvFlags::TRUNC) {
        Ok((_, 0)) | Err(Errno::CONNRESET) => Err(ControlError::Closed),
        Ok((_, length)) => {
            let message = message.get(..length).ok_or(ControlError::Truncated)?;
            Ok(Some(serde_json::from_slice(message)?))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(ControlError::Socket(error.into())),
    }
}

impl AsFd for Control<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket
    }
}

/// Gives each descriptor its name, in the order that [`LaunchSpec`] documents. The outcome file comes apart.
fn assign(spec: LaunchSpec, descriptors: Vec<OwnedFd>) -> Result<(Launch, OwnedFd), ControlError> {
    let optional = usize::from(spec.debug_mode) + usize::from(spec.isolated);
    let expected = FIXED_DESCRIPTORS + spec.memory.len() + optional;
    let received = descriptors.len();
    let wrong = ControlError::Descriptors { expected, received };
    if received != expected {
        return Err(wrong);
    }
    let mut descriptors = descriptors.into_iter();
    let fixed: Vec<OwnedFd> = descriptors.by_ref().take(FIXED_DESCRIPTORS).collect();
    let Ok([kvm, eif, vsock, nsm_listener, outcome]) = <[OwnedFd; FIXED_DESCRIPTORS]>::try_from(fixed) else {
        return Err(wrong);
    };
    let memory = descriptors.by_ref().take(spec.memory.len()).collect();
    let console = if spec.debug_mode { descriptors.next() } else { None };
    let vcpu_group = descriptors.next();
    let launch = Launch {
        spec,
        kvm,
        eif,
        vsock,
        nsm_listener,
        memory,
        console,
        vcpu_group,
    };
    Ok((launch, outcome))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use api::vmm::MemoryFile;
    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType, sendmsg,
        socketpair,
    };

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    fn spec(memory_files: usize, debug_mode: bool, isolated: bool) -> LaunchSpec {
        LaunchSpec {
            enclave_id: "i-0-enc1".into(),
            guest_cid: 16,
            cpu_ids: vec![1],
            threads_per_core: 1,
            memory: vec![
                MemoryFile {
                    size: 2 << 20,
                    page_size: 2 << 20,
                    node: None,
                };
                memory_files
            ],
            vsock: api::vmm::VsockBackend::Unix,
            debug_mode,
            isolated,
        }
    }

    fn send_with(socket: &OwnedFd, message: &[u8], descriptors: usize) {
        let file = File::open("/dev/null").unwrap();
        let descriptors = vec![file.as_fd(); descriptors];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(
            socket,
            &[IoSlice::new(message)],
            &mut ancillary,
            SendFlags::empty(),
        )
        .unwrap();
    }

    #[test]
    fn every_descriptor_gets_its_name() {
        let (daemon, vmm) = pair();
        for (debug_mode, isolated, descriptors) in [
            (false, false, 7),
            (true, false, 8),
            (false, true, 8),
            (true, true, 9),
        ] {
            let spec = spec(2, debug_mode, isolated);
            send_with(&daemon, &serde_json::to_vec(&spec).unwrap(), descriptors);

            let launch = Control::new(vmm.as_fd()).receive_launch().unwrap();

            assert_eq!(launch.spec, spec);
            assert_eq!(launch.memory.len(), 2);
            assert_eq!(
                (launch.console.is_some(), launch.vcpu_group.is_some()),
                (debug_mode, isolated)
            );
        }
    }

    #[test]
    fn missing_and_surplus_descriptors_are_refused() {
        for descriptors in [5, 7] {
            let (daemon, vmm) = pair();
            send_with(
                &daemon,
                &serde_json::to_vec(&spec(1, false, false)).unwrap(),
                descriptors,
            );

            let error = Control::new(vmm.as_fd()).receive_launch().unwrap_err();

            assert!(
                matches!(error, ControlError::Descriptors { expected: 6, received } if received == descriptors)
            );
        }
    }

    #[test]
    fn garbage_and_a_vanished_daemon_are_told_apart() {
        let (daemon, vmm) = pair();
        send_with(&daemon, b"{\"enclave_id\":", 6);
        assert!(matches!(
            Control::new(vmm.as_fd()).receive_launch(),
            Err(ControlError::Malformed(_))
        ));

        drop(daemon);
        assert!(matches!(
            Control::new(vmm.as_fd()).receive_launch(),
            Err(ControlError::Closed)
        ));
    }

    #[test]
    fn instructions_their_absence_and_the_daemons_end_are_told_apart() {
        let (daemon, vmm) = pair();
        assert!(matches!(receive_instruction(vmm.as_fd()), Ok(None)));
        send(&daemon, br#"{"instruction":"outlive"}"#, SendFlags::empty()).unwrap();
        let received = receive_instruction(vmm.as_fd()).unwrap();
        assert_eq!(received, Some(Instruction::Outlive));
        send(&daemon, &[b' '; MAX_INSTRUCTION + 1], SendFlags::empty()).unwrap();
        assert!(matches!(
            receive_instruction(vmm.as_fd()),
            Err(ControlError::Truncated)
        ));
        drop(daemon);
        assert!(matches!(
            receive_instruction(vmm.as_fd()),
            Err(ControlError::Closed)
        ));
    }

    #[test]
    fn a_signed_image_waits_for_its_acceptance_and_for_nothing_else() {
        let (daemon, vmm) = pair();
        let control = Control::new(vmm.as_fd());
        send(&daemon, br#"{"instruction":"accept"}"#, SendFlags::empty()).unwrap();
        control.wait_for_acceptance().unwrap();

        send(&daemon, br#"{"instruction":"outlive"}"#, SendFlags::empty()).unwrap();
        assert!(matches!(
            control.wait_for_acceptance(),
            Err(ControlError::OutOfTurn(Instruction::Outlive))
        ));
        send(&daemon, b"yes", SendFlags::empty()).unwrap();
        assert!(matches!(
            control.wait_for_acceptance(),
            Err(ControlError::Malformed(_))
        ));
        drop(daemon);
        assert!(matches!(control.wait_for_acceptance(), Err(ControlError::Closed)));
    }
}
