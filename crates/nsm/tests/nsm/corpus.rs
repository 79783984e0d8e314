//! Requests in `tests/corpus/requests.txt`: seeds for mutations, each with what becomes of it.

use nsm::Request;

use crate::client::understood;

const REQUESTS: &str = include_str!("../corpus/requests.txt");

/// A line of the file.
pub(crate) struct Entry {
    pub(crate) verdict: &'static str,
    pub(crate) request: Vec<u8>,
}

/// All of them.
pub(crate) fn entries() -> Vec<Entry> {
    let lines = REQUESTS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(entry).collect()
}

fn entry(line: &'static str) -> Entry {
    let mut words = line.split_whitespace();
    let (Some(verdict), Some(hex)) = (words.next(), words.next()) else {
        panic!("not an entry: {line}")
    };
    let digits: Vec<u8> = hex
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
        .collect();
    let request = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    Entry { verdict, request }
}

#[test]
fn each_request_of_the_corpus_has_its_verdict() {
    let entries = entries();
    assert!(entries.len() > 40, "{}", entries.len());
    for Entry { verdict, request } in entries {
        let ours = Request::decode(&request).is_ok();
        let theirs = understood(&request).is_some();
        let found = match (ours, theirs) {
            (true, true) => "accepted",
            (false, false) => "refused",
            (false, true) => "narrower",
            (true, false) => "wider",
        };
        assert_eq!(found, verdict, "{request:02x?}");
    }
}
