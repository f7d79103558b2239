//! Any bytes as a row of the directory that another machine sends: read without a panic, and what is understood reads back.
//! Leaves signatures, and what rows mean together, to the tests of `store` and `directory`.

#![no_main]

use cortex_core::directory::{Directory, Row};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The first byte says how much of the rest is the key.
    let Some((length, rest)) = bytes.split_first() else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let Some(row) = Row::decode(key, value) else {
        return;
    };
    assert_eq!(row.key().as_bytes(), key, "it belongs elsewhere");
    assert_eq!(Row::decode(key, &row.encode()).as_ref(), Some(&row), "it reads back differently");
    let mut directory = Directory::new(Some(row.writer().clone()));
    directory.insert(row.clone());
    directory.insert(row);
    assert_eq!(directory.len(), 1, "the same row twice is one");
});
