//! Runs on a parent instance: a client of the daemon that takes all it can get.
//!
//! ```text
//! crowd SOCKET BEHAVIOUR COUNT
//! ```
//!
//! It opens COUNT connections, opens another one for each that the daemon closes, and goes on until it is killed. Once it has tried
//! COUNT times it prints `crowded`. BEHAVIOUR says what it does with each connection:
//!
//! | | |
//! |---|---|
//! | `silent` | nothing |
//! | `half` | sends the first half of a long request |
//! | `unread` | asks, and never reads the answer |
//! | `talkative` | asks for events, and then sends without end |

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use api::{Request, frame};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes of a request that is never complete, and how many of them are sent.
const LONG: u32 = 190 << 10;
const HALF: usize = 95 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, behaviour, count] = arguments.as_slice() else {
        return Err("crowd SOCKET BEHAVIOUR COUNT".into());
    };
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    let count: usize = count.parse()?;
    let words = words(behaviour)?;
    let mut held = Vec::new();
    let mut tried = 0;
    loop {
        while held.len() < count {
            // The daemon may have more to do than to accept, and may close at once.
            let Ok(stream) = UnixStream::connect(socket) else {
                break;
            };
            stream.set_nonblocking(true)?;
            let _ = (&stream).write(&words);
            held.push(stream);
            tried += 1;
            if tried == count {
                println!("crowded");
                io::stdout().flush()?;
            }
        }
        if behaviour == "talkative" {
            for stream in &held {
                let _ = (&*stream).write(&[b' '; 4096]);
            }
        }
        held = open_ones(held)?;
    }
}

/// What is said first.
fn words(behaviour: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(match behaviour {
        "silent" => Vec::new(),
        "half" => {
            let mut half = LONG.to_be_bytes().to_vec();
            half.resize(HALF, b' ');
            half
        }
        "unread" => frame::encode(&Request::DescribeEnclaves)?,
        "talkative" => frame::encode(&Request::Events)?,
        other => return Err(format!("no such behaviour: {other}").into()),
    })
}

/// Those that the daemon has not closed, after a moment.
fn open_ones(held: Vec<UnixStream>) -> io::Result<Vec<UnixStream>> {
    let mut states: Vec<_> = held
        .iter()
        .map(|stream| PollFd::new(stream, PollFlags::empty()))
        .collect();
    let moment = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    rustix::event::poll(&mut states, Some(&moment))?;
    let closed: Vec<_> = states
        .iter()
        .map(|state| state.revents().intersects(PollFlags::HUP | PollFlags::ERR))
        .collect();
    drop(states);
    let open = held.into_iter().zip(closed).filter(|(_, closed)| !closed);
    Ok(open.map(|(stream, _)| stream).collect())
}
