//! What the engine reports by itself: changes of tasks, lines of output, the stream's own words.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::environment::NodeLine;
use crate::task::{Progress, Task, TaskId, TaskStatus};

/// Which of its two outputs a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The task.
    pub task: TaskId,
    /// The attempt, by its number.
    pub attempt: u32,
    /// When the line was read.
    pub time: DateTime<Utc>,
    /// Where it was written.
    pub stream: OutputStream,
    /// The line, without its end.
    pub line: String,
}

/// A place in the stream of events of one engine, written `epoch:sequence`.
///
/// Sequences of one epoch are dense and grow. An epoch is one life of one engine: no two share one, so
/// that a place in an earlier life is never taken for one in this.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventCursor {
    /// The life of the engine.
    pub epoch: String,
    /// The number of the event; 0 is before the first.
    pub sequence: u64,
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.sequence)
    }
}

impl From<EventCursor> for String {
    fn from(cursor: EventCursor) -> Self {
        cursor.to_string()
    }
}

impl TryFrom<String> for EventCursor {
    type Error = InvalidEventCursor;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for EventCursor {
    type Err = InvalidEventCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_epoch =
            |epoch: &str| !epoch.is_empty() && epoch.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let parsed = text.rsplit_once(':').and_then(|(epoch, sequence)| {
            let is_number = !sequence.is_empty() && sequence.bytes().all(|byte| byte.is_ascii_digit());
            let sequence = sequence.parse().ok().filter(|_| is_number)?;
            is_epoch(epoch).then(|| Self { epoch: epoch.to_owned(), sequence })
        });
        parsed.ok_or_else(|| InvalidEventCursor { text: text.to_owned() })
    }
}

/// A text that is no place in the stream of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not the id of an event: it should be the `cursor` of one, such as 4k2m9x:17")]
pub struct InvalidEventCursor {
    /// The text.
    pub text: String,
}

/// A change of a task, small enough to be sent to everybody who listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// Its place among all events.
    pub cursor: EventCursor,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// The task.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: String,
    /// Its workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// Its state after the change.
    pub status: TaskStatus,
    /// The attempts begun.
    pub attempt: u32,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Why it failed, was cancelled or waits for another attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One item of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A task, whole, after a change.
    Task(Box<Task>),
    /// A change of a task.
    Event(TaskEvent),
    /// A line of output.
    Line(LogLine),
    /// So many lines were dropped here, because the output was longer than its bound.
    Dropped {
        /// The task.
        task: TaskId,
        /// Lines that are missing.
        lines: u64,
        /// Bytes that are missing.
        bytes: u64,
    },
    /// A line of a node of an environment.
    Node(NodeLine),
    /// The first item of a stream of events: everything after this place follows.
    Listening(EventCursor),
    /// Events are missing, because the listener was too slow, was away for too long, or last listened
    /// to another life of the engine: list again. Everything after this place follows.
    Reset(EventCursor),
    /// An item of a newer release.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let cursor = EventCursor { epoch: "0a9z".into(), sequence: 17 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in
            ["", ":", "a:", ":1", "17", "a:-1", "a:+1", "a:1.0", "a b:1", "a:99999999999999999999", "a:b:1"]
        {
            assert!(text.parse::<EventCursor>().is_err(), "{text}");
        }
    }
}
