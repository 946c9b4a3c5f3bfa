//! How much one client, and all of them together, may take.

use std::time::Duration;

/// The limits of a front door. The default is what the engine runs with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a client may take for the head of a request; also how long a connection may be idle.
    pub head: Duration,
    /// How long the engine may take to answer a question that is not meant to wait.
    pub answer: Duration,
    /// How long requests that are under way may take at the end.
    pub farewell: Duration,
    /// The largest head of a request, in bytes. At least 8 192.
    pub head_bytes: usize,
    /// The largest body of a request, in bytes.
    pub body_bytes: usize,
    /// How many requests may be under way at once.
    pub requests: usize,
    /// How many connections may be open at once.
    pub connections: usize,
    /// How many connections may be open at once only to be told no; more are closed without a word, so
    /// that nobody who may not ask can take the place of somebody who may.
    pub refusals: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            // Less than the engine waits for its front doors.
            farewell: Duration::from_secs(3),
            head_bytes: 64 * 1024,
            body_bytes: 4 * 1024 * 1024,
            requests: 64,
            connections: 256,
            refusals: 16,
        }
    }
}
