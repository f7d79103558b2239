//! Any bytes as the body of a frame between machines: read without a panic, and what is understood reads back.
//! Leaves the connection around it, and what a message leads to, to tests over real TLS.

#![no_main]

use cortex_core::wire::link::{FRAME_BYTES, Incoming, body_length};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(Incoming::Known(message)) = Incoming::read(body) else {
        return;
    };
    let mut frame = Vec::new();
    message.write(&mut frame);
    let (header, written) = frame.split_first_chunk().expect("a header");
    assert_eq!(body_length(*header, FRAME_BYTES), Some(written.len()));
    assert_eq!(Incoming::read(written), Ok(Incoming::Known(message)), "it reads back differently");
});
