//! What clients and the daemon, and a VMM and the daemon, say to each other: frames and the JSON in them.

use std::fmt::Debug;

use api::frame::{self, HEADER_LEN, MAX_REPLY, MAX_REQUEST};
use api::{Reply, Request, vmm};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A length beyond the limit is refused by the header alone; whatever is accepted of the body means the same when it is written
/// and read again.
pub(crate) fn check(input: &[u8]) {
    let Some((header, rest)) = input.split_first_chunk::<HEADER_LEN>() else {
        return;
    };
    // Also of bytes that no header announces, so that inputs reach the parsers at all.
    same_again::<Request>(rest);
    same_again::<Reply>(rest);
    same_again::<vmm::Event>(rest);
    same_again::<vmm::LaunchSpec>(rest);
    same_again::<vmm::Instruction>(rest);
    let announced = usize::try_from(u32::from_be_bytes(*header)).expect("at least 32 bits");
    for limit in [MAX_REQUEST, MAX_REPLY] {
        match frame::body_len(*header, limit) {
            Ok(length) => {
                assert_eq!(length, announced);
                assert!(length <= limit, "{length} bytes are accepted");
                if let Some(body) = rest.get(..length) {
                    same_again::<Request>(body);
                }
            }
            Err(_) => assert!(announced > limit, "{announced} bytes are refused"),
        }
    }
}

fn same_again<M: DeserializeOwned + Serialize + PartialEq + Debug>(body: &[u8]) {
    let Ok(message) = frame::decode::<M>(body) else {
        return;
    };
    let written = frame::encode(&message).expect("it was read from fewer bytes than are written");
    let (header, body) = written.split_first_chunk::<HEADER_LEN>().expect("a header");
    assert_eq!(frame::body_len(*header, MAX_REPLY).expect("a length"), body.len());
    assert_eq!(frame::decode::<M>(body).expect("it was written here"), message);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Seeds that no parser takes any more would be of no use.
    #[test]
    fn every_kind_of_message_is_in_the_corpus() {
        let (mut requests, mut replies, mut events) = (Vec::new(), Vec::new(), Vec::new());
        let (mut launches, mut instructions) = (0, 0);
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/daemon-frame");
        for entry in fs::read_dir(corpus).expect("a corpus") {
            let input = fs::read(entry.expect("an entry").path()).expect("an input");
            let body = input.get(HEADER_LEN..).unwrap_or_default();
            requests.extend(frame::decode::<Request>(body).map(|request| std::mem::discriminant(&request)));
            replies.extend(frame::decode::<Reply>(body).map(|reply| std::mem::discriminant(&reply)));
            events.extend(frame::decode::<vmm::Event>(body).map(|event| std::mem::discriminant(&event)));
            launches += u32::from(frame::decode::<vmm::LaunchSpec>(body).is_ok());
            instructions += u32::from(frame::decode::<vmm::Instruction>(body).is_ok());
        }
        assert!(launches >= 1 && instructions >= 2);

        let kinds = |mut found: Vec<String>| {
            found.sort();
            found.dedup();
            found.len()
        };
        let requests = kinds(requests.iter().map(|kind| format!("{kind:?}")).collect());
        let replies = kinds(replies.iter().map(|kind| format!("{kind:?}")).collect());
        let events = kinds(events.iter().map(|kind| format!("{kind:?}")).collect());
        assert_eq!((requests, replies, events), (11, 13, 5));
    }
}
