//! Any bytes on the socket: frames come out or the connection is refused, never a panic, and how the
//! bytes were cut into reads makes no difference.
//!
//! `cargo +nightly fuzz run decoder`, in the crate's directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_protocol::frame::{ClientFrame, Decoder};

fn decode(pieces: &[&[u8]]) -> (Vec<ClientFrame>, bool) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
    }
    (frames, true)
}

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (first, second) = bytes.split_at(cut % (bytes.len() + 1));
    assert_eq!(decode(&[first, second]), decode(&[bytes]));
});
