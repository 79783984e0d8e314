//! Enclave application: asks the security module what the parent wants asked, through AWS's own client library.
//!
//! Each connection to [`port::NSM`] takes lines and answers each with one. A line is a request in words, byte strings in
//! hexadecimal, `-` for one that is left out:
//!
//! ```text
//! DescribePCR 16          ExtendPCR 16 00ff       LockPCR 16      LockPCRs 17
//! DescribeNSM             GetRandom               Attestation <user data> <nonce> <public key>
//! ```
//!
//! The answer is the request and the response as the library serialises them, in hexadecimal, and the response in words:
//! `<request> <response> <words>`. `Repeat 5 GetRandom` makes a request over and over for five seconds, and says how often.
//! `Hwrng` reads 64 bytes from the kernel's own random number generator, which the NSM feeds, and says which one it uses.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_init, nsm_process_request};
use end_to_end_tests::guest::port;
use end_to_end_tests::hex;
use serde_bytes::ByteBuf;
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

fn main() -> io::Result<()> {
    let nsm = nsm_init();
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port::NSM)?;
    println!("nsm-client: ready");
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || serve(stream, nsm));
    }
}

/// Until the parent has no more.
fn serve(mut stream: VsockStream, nsm: i32) -> io::Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = carry_out(&line?, nsm).unwrap_or_else(|| "not understood".to_owned());
        writeln!(stream, "{answer}")?;
    }
    Ok(())
}

fn carry_out(line: &str, nsm: i32) -> Option<String> {
    if let Some(rest) = line.strip_prefix("Repeat ") {
        let (seconds, request) = rest.split_once(' ')?;
        let end = Instant::now() + Duration::from_secs(seconds.parse().ok()?);
        let mut count = 0_u64;
        while Instant::now() < end {
            if let Response::Error(error) = nsm_process_request(nsm, parse(request)?) {
                return Some(format!("{error:?}"));
            }
            count += 1;
        }
        return Some(count.to_string());
    }
    if line == "Hwrng" {
        return hardware_random().ok();
    }
    let sent = serde_cbor::to_vec(&parse(line)?).ok()?;
    let response = nsm_process_request(nsm, parse(line)?);
    let received = serde_cbor::to_vec(&response).ok()?;
    Some(format!(
        "{} {} {}",
        hex::encode(&sent),
        hex::encode(&received),
        in_words(&response)
    ))
}

/// `Documentation/admin-guide/hw_random.rst`.
fn hardware_random() -> io::Result<String> {
    let current = fs::read_to_string("/sys/class/misc/hw_random/rng_current")?;
    let mut bytes = [0; 64];
    File::open("/dev/hwrng")?.read_exact(&mut bytes)?;
    Ok(format!("{} {}", current.trim(), hex::encode(&bytes)))
}

fn parse(line: &str) -> Option<Request> {
    let mut words = line.split_ascii_whitespace();
    let verb = words.next()?;
    let mut index = || words.next()?.parse().ok();
    match verb {
        "DescribePCR" => Some(Request::DescribePCR { index: index()? }),
        "LockPCR" => Some(Request::LockPCR { index: index()? }),
        "LockPCRs" => Some(Request::LockPCRs { range: index()? }),
        "ExtendPCR" => Some(Request::ExtendPCR {
            index: index()?,
            data: hex::decode(words.next().unwrap_or_default())?,
        }),
        "DescribeNSM" => Some(Request::DescribeNSM),
        "GetRandom" => Some(Request::GetRandom),
        "Attestation" => {
            let mut field = || match words.next()? {
                "-" => Some(None),
                digits => Some(Some(ByteBuf::from(hex::decode(digits)?))),
            };
            Some(Request::Attestation {
                user_data: field()?,
                nonce: field()?,
                public_key: field()?,
            })
        }
        _ => None,
    }
}

fn in_words(response: &Response) -> String {
    match response {
        Response::DescribePCR { lock, data } => format!("DescribePCR {lock} {}", hex::encode(data)),
        Response::ExtendPCR { data } => format!("ExtendPCR {}", hex::encode(data)),
        Response::Attestation { document } => format!("Attestation {}", hex::encode(document)),
        Response::GetRandom { random } => format!("GetRandom {}", hex::encode(random)),
        Response::Error(error) => format!("Error {error:?}"),
        other => format!("{other:?}"),
    }
}
