//! What the engine reports by itself: changes of tasks, lines of output, the stream's own words.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

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

/// A change of a task, small enough to be sent to everybody who listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskEvent {
    /// The commit that made the change; 0 for progress, which is not stored.
    pub sequence: u64,
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

impl TaskEvent {
    /// The event that a task's state after a commit makes.
    pub fn of(task: &Task, sequence: u64) -> Self {
        Self {
            sequence,
            id: task.id,
            name: task.name.clone(),
            group: task.group.clone(),
            parent: task.parent,
            status: task.status,
            attempt: task.attempt,
            progress: task.progress.clone(),
            error: task.error.clone().or_else(|| task.last_error.clone()),
        }
    }
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
    /// The listener was too slow, and events are missing: list again.
    Reset,
    /// An item of a newer release.
    #[serde(other)]
    Unknown,
}
