//! Stands in for `enclave-vmm`: a VMM that its guest has taken over, and that tries to pass itself off as something it is not.
//!
//! Two orders it obeys before it does anything else:
//!
//! ```text
//! leave             ends with status 3
//! talk-nonsense     says what no VMM says, and waits to be ended
//! ```
//!
//! With all others it becomes the user that the daemon tells it to be, takes its launch message as any VMM does, tells measurements,
//! says that it has started, sends the heartbeat of a guest, and then does what the file [`ORDERS`] says:
//!
//! ```text
//! behave            nothing more
//! measure-twice     tells other measurements before it starts
//! measure-late      tells other measurements once it runs
//! impersonate       asks for documents in the name of another enclave, through its own channel and through that one's socket
//! garbage           sends what is no request, then asks for PCR 0
//! flood             asks for documents for as long as it lives
//! leave-a-child     starts another process, and waits to be ended
//! break-out         tries to open the files in the following lines, and whatever else is not its own
//! break-out-of-jail goes where a VMM stays (`enclave_vmm::sandbox::jail`) first, and has no filter of system calls; then tries
//!                   what the following lines say (see `jail_break`)
//! exhaust           likewise, and takes all that it can get (see `exhaust`)
//! ```
//!
//! What it learns goes to the file [`FINDINGS`], a line each.

#![forbid(unsafe_code)]

mod break_out;
mod exhaust;
mod jail_break;

use std::env;
use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use api::nsm::{RequestPacket, ResponsePacket};
use api::vmm::{Event, LaunchSpec, MAX_MESSAGE};
use api::{HEARTBEAT_BYTE, HEARTBEAT_PORT, Measurements};
use enclave_vmm::privileges;
use enclave_vmm::sandbox::jail::{Jail, become_user};
use end_to_end_tests::hostile_vmm::{FINDINGS, MEASURED, ORDERS, attestation, describe_pcr_0};
use end_to_end_tests::{guest, hex};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, recv, recvmsg, send,
};

/// Of the listener to which the daemon connects for the NSM, and of the file with its last words, among the descriptors of a launch
/// message.
const NSM_LISTENER: usize = 3;
const OUTCOME: usize = 4;

/// What the daemon says before the user that the VMM is to become.
const USER: &str = "--user";

/// The orders to go to jail first.
const BREAK_OUT_OF_JAIL: &str = "break-out-of-jail";
const EXHAUST: &str = "exhaust";

fn main() -> io::Result<()> {
    let orders = fs::read_to_string(ORDERS).unwrap_or_default();
    let mut orders = orders.lines();
    let order = orders.next().unwrap_or_default();
    match order {
        "leave" => process::exit(3),
        "talk-nonsense" => {
            send(io::stdin(), b"nonsense", SendFlags::NOSIGNAL)?;
            guest::idle();
        }
        _ => {}
    }
    // There may be no way to it later. It is there already, since it is somebody else who reads it.
    let findings = File::options().append(true).open(FINDINGS)?;
    let found = |line: &str| writeln!(&findings, "{line}");
    confine([BREAK_OUT_OF_JAIL, EXHAUST].contains(&order))?;
    let stdin = io::stdin();
    let (spec, mut descriptors) = receive_launch(stdin.as_fd())?;
    let tell = |event: &Event| tell(stdin.as_fd(), event);
    tell(&Event::Measured(measurements(MEASURED)))?;
    if order == "measure-twice" {
        tell(&Event::Measured(measurements("02")))?;
    }
    tell(&Event::Started)?;
    heartbeat()?;
    let nsm = descriptors.get(NSM_LISTENER).ok_or(io::ErrorKind::NotFound)?;
    let nsm = Channel(rustix::net::accept_with(nsm, SocketFlags::CLOEXEC)?);
    match order {
        "measure-late" => tell(&Event::Measured(measurements("02")))?,
        "impersonate" => impersonate(&nsm, &spec.enclave_id, found)?,
        "garbage" => send_garbage(&nsm, found)?,
        "flood" => flood(&nsm, found)?,
        "leave-a-child" => leave_a_child(found)?,
        BREAK_OUT_OF_JAIL => jail_break::try_everything(orders, &descriptors, found)?,
        EXHAUST => exhaust::take_everything(&spec, descriptors.swap_remove(OUTCOME), found)?,
        "break-out" => break_out::try_everything(&orders.map(PathBuf::from).collect::<Vec<_>>(), found)?,
        _ => {}
    }
    guest::idle();
}

/// Becomes what the daemon says; all of what a VMM does, or the user alone.
fn confine(jailed: bool) -> io::Result<()> {
    let mut arguments = env::args().skip_while(|argument| argument != USER).skip(1);
    let user = arguments.next().and_then(|user| user.parse().ok());
    if jailed {
        let jail = Jail {
            user,
            may_be_missing: Vec::new(),
        };
        jail.enter().map_err(io::Error::other)?;
        privileges::give_up();
        return Ok(());
    }
    Ok(user.map_or(Ok(()), become_user)?)
}

fn receive_launch(socket: impl AsFd) -> io::Result<(LaunchSpec, Vec<OwnedFd>)> {
    let mut message = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut message)];
    let length = recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    let spec = serde_json::from_slice(message.get(..length).unwrap_or_default())?;
    Ok((spec, descriptors))
}

fn tell(socket: impl AsFd, event: &Event) -> io::Result<()> {
    send(socket, &serde_json::to_vec(event)?, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Every PCR with this byte, in hexadecimal.
fn measurements(byte: &str) -> Measurements {
    let pcr = || byte.repeat(48);
    Measurements {
        hash_algorithm: String::new(),
        pcr0: pcr(),
        pcr1: pcr(),
        pcr2: pcr(),
        pcr8: None,
    }
}

/// What the guest's init does; the working directory is the enclave's.
fn heartbeat() -> io::Result<()> {
    let mut stream = UnixStream::connect(format!("vsock.sock_{HEARTBEAT_PORT}"))?;
    stream.write_all(&[HEARTBEAT_BYTE])?;
    stream.read_exact(&mut [0])
}

/// The daemon, as the NSM of this enclave.
struct Channel(OwnedFd);

impl Channel {
    fn say(&self, number: u64, request: &[u8]) -> io::Result<()> {
        let packet = RequestPacket {
            number,
            room: 0x3000,
            request,
        };
        send(&self.0, &packet.encode(), SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Whether there was room for it.
    fn try_to_send(&self, packet: &[u8]) -> io::Result<bool> {
        match send(&self.0, packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Ok(false),
            sent => Ok(sent.map(|_| true)?),
        }
    }

    /// The response to request `number` if it is among those that are there; the others are thrown away.
    fn heard_of(&self, number: u64) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut packet = vec![0; 0x4000];
            let length = match recv(&self.0, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let packet = packet.get(..length).and_then(ResponsePacket::decode);
            if let Some(packet) = packet.filter(|packet| packet.number == number) {
                return Ok(Some(packet.response.to_vec()));
            }
        }
    }

    fn hear(&self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0; 0x4000];
        let (length, _) = recv(&self.0, &mut packet[..], RecvFlags::empty())?;
        let packet = packet.get(..length).and_then(ResponsePacket::decode);
        packet
            .map(|packet| packet.response.to_vec())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// There is no field in which an enclave is named, so all that can be tried is another's socket.
fn impersonate(own: &Channel, own_id: &str, found: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    own.say(1, &attestation())?;
    found(&format!("document {}", hex::encode(&own.hear()?)))?;
    for entry in fs::read_dir("..")?.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy() == own_id || !path.is_dir() {
            continue;
        }
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let outcome = match rustix::net::connect(&socket, &SocketAddrUnix::new(path.join("nsm.sock"))?) {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("{:?}", io::Error::from(error).kind()),
        };
        found(&format!("other's socket: {outcome}"))?;
    }
    Ok(())
}

/// It is its VMM's user's, and not what `terminate-enclave` is told to end.
fn leave_a_child(found: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    let child = Command::new("sleep").arg("100000").spawn()?;
    found(&format!("child {}", child.id()))
}

fn send_garbage(nsm: &Channel, found: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    // An empty packet would end the conversation; some of the others are too short even to be a request.
    for length in 1..1000_usize {
        let bytes: Vec<u8> = (0..length)
            .map(|at| (at * 37 + length).to_le_bytes()[0])
            .collect();
        nsm.try_to_send(&bytes)?;
        nsm.heard_of(u64::MAX)?;
    }
    let question = RequestPacket {
        number: u64::MAX,
        room: 0x3000,
        request: &describe_pcr_0(),
    };
    // Its own answers have to be taken, or the daemon waits until they are.
    while !nsm.try_to_send(&question.encode())? {
        nsm.heard_of(u64::MAX)?;
    }
    loop {
        if let Some(response) = nsm.heard_of(u64::MAX)? {
            return found(&format!("pcr0 {}", hex::encode(&response)));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn flood(nsm: &Channel, found: impl Fn(&str) -> io::Result<()>) -> io::Result<()> {
    found("flooding")?;
    let question = RequestPacket {
        number: 1,
        room: 0x3000,
        request: &attestation(),
    }
    .encode();
    loop {
        nsm.try_to_send(&question)?;
        nsm.heard_of(u64::MAX)?;
    }
}
