//! Any bytes as a journal: they are read or refused, never a panic, and what is read as whole is read
//! the same again without what follows it.
//!
//! `cargo +nightly fuzz run journal`, in the crate's directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use orchestrator_storage::filesystem::journal::read;

fuzz_target!(|bytes: &[u8]| {
    let Ok(journal) = read(bytes) else { return };
    assert_eq!(journal.whole_bytes + journal.torn_bytes, bytes.len() as u64);
    let again = read(&bytes[..journal.whole_bytes as usize]);
    assert_eq!(again.map(|again| again.commits), Ok(journal.commits));
});
