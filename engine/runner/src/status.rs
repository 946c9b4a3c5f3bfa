//! What a runner says last.

use serde::{Deserialize, Serialize};

/// The file in the attempt's directory. It appears when everything that the attempt started is gone.
pub const FILE: &str = "status.json";

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`crate::PROTOCOL`] of the writer.
    pub protocol: u32,
    /// Why it ended.
    pub reason: Reason,
    /// The program's exit code.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When the program was started, in milliseconds since the Unix epoch.
    pub started_at: u64,
    /// When everything was gone.
    pub ended_at: u64,
    /// The last `::result`.
    pub result: Option<serde_json::Value>,
    /// The last `::fail`.
    pub failure: Option<Failure>,
    /// The last lines of standard error, masked.
    pub stderr_tail: Vec<String>,
    /// What was printed.
    pub output: Totals,
    /// How many processes were left when the program had ended, and were ended too.
    pub leftovers: u64,
}

/// Why an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The program ended by itself.
    Exited,
    /// It took longer than it may.
    TimedOut,
    /// It was called off.
    Cancelled,
    /// Its engine had not renewed its lease by the deadline.
    LeaseLost,
    /// It could not be started.
    StartFailed {
        /// Why, in a sentence.
        error: String,
    },
}

/// What a script says of its own failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Whether it is of no use to try again.
    pub permanent: bool,
    /// In its words.
    pub message: String,
}

/// How much was printed, and how much of it was not kept. A line of more than 64 KiB counts as several.
/// Bytes are those of the lines as they are spooled: masked, and without line ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Lines.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
    /// Lines of these that were dropped from the middle, because there were too many.
    pub dropped_lines: u64,
    /// Bytes of these.
    pub dropped_bytes: u64,
    /// Lines that could not be written, because the disk was full or failed.
    pub unwritten_lines: u64,
    /// Bytes of these.
    pub unwritten_bytes: u64,
}

/// How far a script is, as it said last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: Option<f64>,
    /// Steps done.
    pub done: Option<u64>,
    /// Steps in all.
    pub total: Option<u64>,
    /// What it is doing.
    pub message: String,
}
