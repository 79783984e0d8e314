//! Makes requests that are unusual, and often wrong.

use proptest::collection::vec;
use proptest::prelude::*;

fn bytes(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..limit)
}

/// An item's first bytes: `major` type, `argument`, written at least `width` bytes wide.
fn head(major: u8, argument: u64, width: usize) -> Vec<u8> {
    let (first, length) = match (argument, width) {
        (0..=23, 0) => (u8::try_from(argument).unwrap(), 0),
        (0..=0xff, 0..=1) => (24, 1),
        (0..=0xffff, 0..=2) => (25, 2),
        (0..=0xffff_ffff, 0..=4) => (26, 4),
        _ => (27, 8),
    };
    [&[major << 5 | first][..], &argument.to_be_bytes()[8 - length..]].concat()
}

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(0_usize), 1 => 1_usize..9]
}

/// A string in one piece, or in two. Text is not cut within a character, which serde_cbor alone would not mind.
fn string(major: u8, content: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    (width(), 0..=content.len(), prop::bool::weighted(0.2)).prop_map(move |(width, middle, in_pieces)| {
        let piece = |bytes: &[u8]| [head(major, bytes.len() as u64, width), bytes.to_vec()].concat();
        let (first, second) = content.split_at(middle);
        let within_a_character = major == 3 && str::from_utf8(first).is_err();
        if in_pieces && !within_a_character {
            [vec![major << 5 | 31], piece(first), piece(second), vec![0xff]].concat()
        } else {
            piece(&content)
        }
    })
}

/// Groups of items in an array or a map.
fn container(major: u8, groups: &[Vec<u8>], width: usize, indefinite: bool) -> Vec<u8> {
    let content = groups.concat();
    if indefinite {
        [vec![major << 5 | 31], content, vec![0xff]].concat()
    } else {
        [head(major, groups.len() as u64, width), content].concat()
    }
}

fn scalar() -> impl Strategy<Value = Vec<u8>> {
    let integer =
        (0_u64..70_000, width(), 0_u8..2).prop_map(|(value, width, major)| head(major, value, width));
    prop_oneof![
        4 => (0_u64..40, width()).prop_map(|(value, width)| head(0, value, width)),
        2 => integer,
        4 => bytes(40).prop_flat_map(|content| string(2, content)),
        2 => "[a-zé]{0,9}".prop_flat_map(|text| string(3, text.into_bytes())),
        1 => bytes(6).prop_map(|content| [head(3, content.len() as u64, 0), content].concat()),
        3 => Just(vec![0xf6]),
        1 => prop::sample::select(vec![vec![0xf4], vec![0xf5], vec![0xf7], vec![0xf9, 0, 0], vec![0xfa, 1, 2, 3, 4], vec![0xfb, 1, 2, 3, 4, 5, 6, 7, 8]]),
        1 => prop::sample::select(vec![0x1c_u8, 0x1f, 0x3d, 0x5e, 0x7c, 0x9d, 0xbe, 0xdc, 0xdf, 0xe0, 0xf3, 0xf8, 0xfc, 0xff]).prop_map(|byte| vec![byte, 0]),
    ]
}

/// Any value, but no tags: at the top of a parameter only serde_cbor ignores those.
fn value() -> impl Strategy<Value = Vec<u8>> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..4), width(), any::<bool>())
                .prop_map(|(items, width, indefinite)| container(4, &items, width, indefinite)),
            (vec((inner.clone(), inner), 0..3), width(), any::<bool>()).prop_map(
                |(pairs, width, indefinite)| {
                    let pairs: Vec<_> = pairs
                        .into_iter()
                        .map(|(key, value)| [key, value].concat())
                        .collect();
                    container(5, &pairs, width, indefinite)
                }
            ),
        ]
    })
}

/// Bytes as an array of small integers.
fn array_of_bytes() -> impl Strategy<Value = Vec<u8>> {
    let items = vec((prop_oneof![20 => 0_u64..256, 1 => 256_u64..300], width()), 0..12);
    (items, width(), any::<bool>()).prop_map(|(items, width, indefinite)| {
        let items: Vec<_> = items
            .into_iter()
            .map(|(value, width)| head(0, value, width))
            .collect();
        container(4, &items, width, indefinite)
    })
}

/// A name, and values of which most fit it.
fn named(name: &'static str, value: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Vec<u8>> {
    let name = string(3, name.as_bytes().to_vec());
    (name, value)
        .prop_map(|pair| <[_; 2]>::from(pair).concat())
        .boxed()
}

fn number(name: &'static str) -> BoxedStrategy<Vec<u8>> {
    let number = (0_u64..40, width()).prop_map(|(value, width)| head(0, value, width));
    named(name, prop_oneof![15 => number, 1 => value()])
}

fn data(name: &'static str) -> BoxedStrategy<Vec<u8>> {
    let data = prop_oneof![
        6 => bytes(40).prop_flat_map(|content| string(2, content)),
        3 => array_of_bytes(),
        2 => Just(vec![0xf6]),
        1 => value(),
    ];
    named(name, data)
}

/// What an operation takes, or should.
fn own_parameters(operation: &str) -> Vec<BoxedStrategy<Vec<u8>>> {
    match operation {
        "DescribePCR" | "LockPCR" => vec![number("index")],
        "LockPCRs" => vec![number("range")],
        "ExtendPCR" => vec![number("index"), data("data")],
        "Attestation" => vec![data("user_data"), data("nonce"), data("public_key")],
        _ => vec![],
    }
}

/// What may stand beside it: unknown to most operations, and sometimes a second of the same name.
fn other_parameter() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => number("index"),
        1 => number("range"),
        1 => data("nonce"),
        2 => named("data", value()),
        2 => named("", value()),
        2 => named("é", value()),
        2 => named("Index", value()),
    ]
}

fn parameters(operation: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let own = own_parameters(operation);
    let kept = vec(prop::bool::weighted(0.9), own.len());
    let others = vec(other_parameter(), 0..3);
    let parameters = (own, kept, others).prop_map(|(own, kept, others)| {
        let own = own
            .into_iter()
            .zip(kept)
            .filter_map(|(parameter, kept)| kept.then_some(parameter));
        own.chain(others).collect::<Vec<_>>()
    });
    (parameters.prop_shuffle(), width(), any::<bool>())
        .prop_map(|(parameters, width, indefinite)| container(5, &parameters, width, indefinite))
}

fn request_for(operation: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let name = || string(3, operation.as_bytes().to_vec());
    // Only serde_cbor takes an array for a map.
    let no_array = scalar().prop_filter("an array", |bytes| bytes[0] >> 5 != 4);
    let with = |operand: BoxedStrategy<Vec<u8>>| {
        (name(), operand).prop_map(|(name, operand)| [vec![0xa1], name, operand].concat())
    };
    prop_oneof![8 => with(parameters(operation).boxed()), 1 => with(no_array.boxed()), 1 => name()]
}

/// A request in which everything varies that a client may vary, and much that it may not; with tags and whatever else only
/// serde_cbor reads left out.
pub(crate) fn unusual_request() -> impl Strategy<Value = Vec<u8>> {
    let request = prop::sample::select(vec![
        "DescribePCR",
        "ExtendPCR",
        "LockPCR",
        "LockPCRs",
        "DescribeNSM",
        "GetRandom",
        "Attestation",
        "Nothing",
    ])
    .prop_flat_map(request_for);
    let end = prop_oneof![15 => Just(vec![]), 1 => bytes(3)];
    (request, end).prop_map(|(request, end)| [request, end].concat())
}
