//! Any bytes, cut anywhere: the scanner finds the frames that a naive reading of the format finds.
//! Leaves what a frame means to `connection`.
//!
//! Input: one byte for the number of cuts, a byte for the distance to each cut, then the stream.

#![no_main]

use cortex_core::wire::{FrameError, Scan, Scanner};
use libfuzzer_sys::fuzz_target;

/// Small enough for the fuzzer to reach and to cross.
const LIMIT: usize = 1024;
const DEPTH: usize = 8;

fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else {
        return;
    };
    let Some((distances, stream)) = rest.split_at_checked(usize::from(count % 16)) else {
        return;
    };
    let mut whole = Vec::new();
    let end_of_whole = frames(stream, &[stream.len()], &mut whole);
    let mut pieces = Vec::new();
    let mut arrived: Vec<usize> = distances
        .iter()
        .scan(0, |at, distance| {
            *at += usize::from(*distance);
            Some(*at)
        })
        .take_while(|at| *at < stream.len())
        .collect();
    arrived.push(stream.len());
    let end_of_pieces = frames(stream, &arrived, &mut pieces);
    assert_eq!(whole, pieces, "the cuts {arrived:?} change what is found");
    assert_eq!(end_of_whole, end_of_pieces, "the cuts {arrived:?} change how it ends");

    let mut at = 0;
    for scan in &whole {
        let (length, deep) = match *scan {
            Scan::Whole(length) => (length, false),
            Scan::Deep(length) => (length, true),
            Scan::More => panic!("an incomplete value is no frame"),
        };
        let (naive_length, naive_depth) =
            value(&stream[at..]).expect("the scanner found a value here");
        assert_eq!(length, naive_length, "at {at}");
        assert_eq!(deep, naive_depth > DEPTH, "{naive_depth} levels at {at}");
        assert!(length <= LIMIT);
        at += length;
    }
    match (end_of_whole, value(&stream[at..])) {
        (End::Incomplete, None) | (End::Refused(FrameError::NotMessagePack), None) => {}
        // What does not fit is refused, whether or not it would be followed to its end.
        (End::Refused(FrameError::TooLarge(_)), Some((length, _))) => assert!(length > LIMIT),
        (End::Refused(FrameError::TooLarge(_)), None) => {}
        (end, naive) => {
            panic!("the scanner ends with {end:?} at {at}, the naive reading with {naive:?}")
        }
    }
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Incomplete,
    Refused(FrameError),
}

/// Scans a stream of which so many bytes have arrived, and then so many, up to all of them.
fn frames(stream: &[u8], arrived: &[usize], found: &mut Vec<Scan>) -> End {
    let mut scanner = Scanner::new(LIMIT, DEPTH);
    let mut begin = 0;
    for end in arrived {
        while begin < *end {
            match scanner.scan(&stream[begin..*end]) {
                Ok(Scan::More) => break,
                Ok(scan @ (Scan::Whole(length) | Scan::Deep(length))) => {
                    found.push(scan);
                    begin += length;
                }
                Err(error) => return End::Refused(error),
            }
        }
    }
    End::Incomplete
}

/// The length of the first value, and how many containers deep it goes; none if it is cut short or is no
/// MessagePack. Written down from the specification, by recursion; a container without contents has no depth.
fn value(bytes: &[u8]) -> Option<(usize, usize)> {
    let number = |from: usize, width: usize| -> Option<usize> {
        Some(bytes.get(from..from + width)?.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    };
    let marker = *bytes.first()?;
    let (header, body, children) = match marker {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (1, 0, 0),
        0x80..=0x8f => (1, 0, 2 * usize::from(marker & 15)),
        0x90..=0x9f => (1, 0, usize::from(marker & 15)),
        0xa0..=0xbf => (1, usize::from(marker & 31), 0),
        0xc1 => return None,
        0xc4 | 0xd9 => (2, number(1, 1)?, 0),
        0xc5 | 0xda => (3, number(1, 2)?, 0),
        0xc6 | 0xdb => (5, number(1, 4)?, 0),
        0xc7 => (3, number(1, 1)?, 0),
        0xc8 => (4, number(1, 2)?, 0),
        0xc9 => (6, number(1, 4)?, 0),
        0xcc | 0xd0 => (1, 1, 0),
        0xcd | 0xd1 => (1, 2, 0),
        0xca | 0xce | 0xd2 => (1, 4, 0),
        0xcb | 0xcf | 0xd3 => (1, 8, 0),
        0xd4..=0xd8 => (2, 1 << (marker - 0xd4), 0),
        0xdc => (3, 0, number(1, 2)?),
        0xdd => (5, 0, number(1, 4)?),
        0xde => (3, 0, 2 * number(1, 2)?),
        0xdf => (5, 0, 2 * number(1, 4)?),
    };
    let mut length = header + body;
    if length > bytes.len() {
        return None;
    }
    let mut depth = 0;
    for _ in 0..children {
        let (child, below) = value(&bytes[length..])?;
        length += child;
        depth = depth.max(below);
    }
    Some((length, if children > 0 { depth + 1 } else { 0 }))
}
