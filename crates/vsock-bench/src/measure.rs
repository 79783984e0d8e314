//! The measurements, each over connections of its own to a guest that is ready. The clock is the parent's `CLOCK_MONOTONIC`.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use vsock_bench::{READ_BUFFER, Transfer, port, receive, send};

use crate::{events::Events, machine::Machine, way::Listener};

/// How much is done for one figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amounts {
    /// One-byte messages there and back.
    pub(crate) trips: u32,
    /// Connections.
    pub(crate) connections: u32,
    /// Bytes of a transfer.
    pub(crate) bytes: u64,
}

impl Amounts {
    /// To be timed.
    pub(crate) const TIMED: Self = Self {
        trips: 1000,
        connections: 300,
        bytes: 32 << 20,
    };
    /// To be recorded, event by event.
    pub(crate) const RECORDED: Self = Self {
        trips: 100,
        connections: 50,
        bytes: 4 << 20,
    };
    /// Done before anything is measured, so that buffers and caches are as they will be.
    const WARM_UP: Self = Self {
        trips: 50,
        connections: 20,
        bytes: 2 << 20,
    };
}

/// What happens while an operation is done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watch<'a> {
    /// Time goes by.
    Clock,
    /// The kernel records.
    Events(&'a Events),
}

impl Watch<'_> {
    fn during(self, work: impl FnOnce() -> io::Result<()>) -> io::Result<Duration> {
        if let Self::Events(events) = self {
            events.start()?;
        }
        let started = Instant::now();
        work()?;
        let time = started.elapsed();
        if let Self::Events(events) = self {
            events.stop()?;
        }
        Ok(time)
    }
}

/// One figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Microseconds of a round trip of one byte.
    Trip,
    /// MiB per second from the parent to the guest, with writes of so many KiB.
    In(u32),
    /// MiB per second from the guest to the parent, with writes of so many KiB.
    Out(u32),
    /// Connections per second, made by the parent.
    ConnectionsIn,
    /// Connections per second, made by the guest.
    ConnectionsOut,
}

impl Figure {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 7] = [
        Self::Trip,
        Self::In(16),
        Self::In(64),
        Self::Out(16),
        Self::Out(64),
        Self::ConnectionsIn,
        Self::ConnectionsOut,
    ];

    /// Measures once, in the unit of the figure.
    pub(crate) fn measure(self, machine: &mut Machine) -> io::Result<f64> {
        let amounts = Amounts::TIMED;
        let seconds = self.watched(machine, amounts, Watch::Clock)?.as_secs_f64();
        let operations = f64::from(self.operations(amounts));
        Ok(match self {
            Self::Trip => seconds * 1e6 / operations,
            Self::In(kib) | Self::Out(kib) => operations * f64::from(kib) / 1024.0 / seconds,
            Self::ConnectionsIn | Self::ConnectionsOut => operations / seconds,
        })
    }

    /// How many trips, writes or connections that is.
    pub(crate) fn operations(self, amounts: Amounts) -> u32 {
        match self {
            Self::Trip => amounts.trips,
            Self::In(kib) | Self::Out(kib) => {
                u32::try_from(amounts.bytes / u64::from(kib << 10)).unwrap_or(u32::MAX)
            }
            Self::ConnectionsIn | Self::ConnectionsOut => amounts.connections,
        }
    }

    /// Does as much as `amounts` say, watched, after a shorter start that is not.
    pub(crate) fn watched(
        self,
        machine: &mut Machine,
        amounts: Amounts,
        watch: Watch<'_>,
    ) -> io::Result<Duration> {
        match self {
            Self::Trip => {
                let mut stream = machine.way.connect(port::ECHO)?;
                trips(&mut stream, Amounts::WARM_UP.trips)?;
                watch.during(|| trips(&mut stream, amounts.trips))
            }
            Self::In(kib) => {
                let mut stream = machine.way.connect(port::SINK)?;
                let transfer = |total| Transfer {
                    write: kib << 10,
                    total,
                };
                inward(&mut stream, transfer(Amounts::WARM_UP.bytes))?;
                watch.during(|| inward(&mut stream, transfer(amounts.bytes)))
            }
            Self::Out(kib) => {
                let mut stream = machine.way.connect(port::SOURCE)?;
                let mut buffer = vec![0; READ_BUFFER];
                let transfer = |total| Transfer {
                    write: kib << 10,
                    total,
                };
                outward(&mut stream, transfer(Amounts::WARM_UP.bytes), &mut buffer)?;
                watch.during(|| outward(&mut stream, transfer(amounts.bytes), &mut buffer))
            }
            Self::ConnectionsIn => {
                connections_in(machine, Amounts::WARM_UP.connections)?;
                watch.during(|| connections_in(machine, amounts.connections))
            }
            Self::ConnectionsOut => {
                let listener = machine.way.listen(port::CALLS)?;
                connections_out(machine, &listener, Amounts::WARM_UP.connections)?;
                watch.during(|| connections_out(machine, &listener, amounts.connections))
            }
        }
    }
}

fn trips(stream: &mut UnixStream, number: u32) -> io::Result<()> {
    for _ in 0..number {
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
    }
    Ok(())
}

fn inward(stream: &mut UnixStream, transfer: Transfer) -> io::Result<()> {
    stream.write_all(&transfer.to_bytes())?;
    send(stream, transfer)?;
    stream.read_exact(&mut [0])
}

fn outward(stream: &mut UnixStream, transfer: Transfer, buffer: &mut [u8]) -> io::Result<()> {
    stream.write_all(&transfer.to_bytes())?;
    receive(stream, transfer, buffer)
}

fn connections_in(machine: &Machine, number: u32) -> io::Result<()> {
    for _ in 0..number {
        ended(machine.way.connect(port::GREETER)?)?;
    }
    Ok(())
}

fn connections_out(machine: &mut Machine, listener: &Listener, number: u32) -> io::Result<()> {
    machine.control.write_all(&number.to_le_bytes())?;
    for _ in 0..number {
        drop(machine.way.accept(listener)?);
    }
    machine.control.read_exact(&mut [0])
}

/// Waits for the end of a stream.
fn ended(mut stream: UnixStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
