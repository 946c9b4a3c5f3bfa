//! How much one client, and all of them together, may take.

use std::time::Duration;

/// The limits of a front door. The default is what the engine runs with.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a client may take for the head of a request; also how long a connection may be idle.
    pub head: Duration,
    /// How long a client may take for the body of a request.
    pub body: Duration,
    /// How long the engine may take to answer a question that is not meant to wait.
    pub answer: Duration,
    /// How long requests that are under way may take at the end.
    pub farewell: Duration,
    /// The largest head of a request, in bytes. At least 8 192.
    pub head_bytes: usize,
    /// The largest body of a request, in bytes.
    pub body_bytes: usize,
    /// How many requests may be under way at once. One that waits for a task's end, and one that is
    /// answered with a stream that is followed, is none of these but one of `waits`.
    pub requests: usize,
    /// How many requests may wait, or follow a stream, at once. Fewer than `connections`, so that there
    /// is always room to ask what they wait for.
    pub waits: usize,
    /// After how much silence a stream of events says that it is still there.
    pub keep_alive: Duration,
    /// How much output of tasks an answer that is no stream holds, in bytes.
    pub output_bytes: usize,
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
            body: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            // Less than the engine waits for its front doors.
            farewell: Duration::from_secs(3),
            head_bytes: 64 * 1024,
            body_bytes: 4 * 1024 * 1024,
            requests: 64,
            waits: 128,
            keep_alive: Duration::from_secs(15),
            output_bytes: 8 * 1024 * 1024,
            connections: 256,
            refusals: 16,
        }
    }
}
