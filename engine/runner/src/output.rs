//! The spool: what a script printed, with times, in files of bounded size.
//!
//! Each line is a JSON object: `n` its number, `b` the bytes before it, `t` the time in milliseconds
//! since the Unix epoch, `s` `out` or `err`, `l` the text, and `c` when a line was so long that it goes
//! on in the next one of its stream. The first half of the bound is in `head.jsonl`; what comes after is
//! in a ring of four segments, of which the oldest is removed. So the beginning and the end are kept,
//! and a gap in the numbers says exactly how much is missing in between, also to a reader that was
//! somewhere else before. Nothing is synced: the spool outlives its runner and its engine, but after a
//! power cut its end may be missing.

mod reader;
mod spool;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use reader::{Entry, Position, PositionError, Reader};
pub use spool::Spool;

/// The directory in the attempt's directory.
pub const DIRECTORY: &str = "output";
/// How many segments there are after the head.
const SEGMENTS: u64 = 4;
/// How much is read or written at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line of the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number; 1 for the first.
    #[serde(rename = "n")]
    pub number: u64,
    /// The bytes of all lines before it.
    #[serde(rename = "b")]
    pub bytes_before: u64,
    /// When it was read, in milliseconds since the Unix epoch.
    #[serde(rename = "t")]
    pub time_ms: u64,
    /// Where it was written.
    #[serde(rename = "s")]
    pub stream: Stream,
    /// The text, masked, without its end.
    #[serde(rename = "l")]
    pub text: String,
    /// Whether the next line of the stream goes on with it.
    #[serde(rename = "c", default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
}

fn segment_path(directory: &Path, index: u64) -> PathBuf {
    match index {
        0 => directory.join("head.jsonl"),
        index => directory.join(format!("tail-{index:08}.jsonl")),
    }
}
