//! What a task looks like over REST.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator_protocol::task::{Attempt, Progress, Task, TaskId, TaskKind, TaskStatus, Work, Workflow};
use serde::Serialize;
use serde_json::Value;

/// A task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskView {
    id: TaskId,
    name: String,
    kind: TaskKind,
    command: String,
    args: Vec<String>,
    dependencies: Vec<TaskId>,
    status: TaskStatus,
    priority: i32,
    attempt: u32,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    progress: Option<Progress>,
    output: Option<String>,
    result: Option<Value>,
    error: Option<String>,
    group: String,
    parent: Option<TaskId>,
    labels: BTreeMap<String, String>,
    lock: Option<String>,
    max_retries: u32,
    timeout_ms: Option<u64>,
    not_before: Option<DateTime<Utc>>,
    next_attempt_at: Option<DateTime<Utc>>,
    last_error: Option<String>,
    attempts: Vec<Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Workflow>,
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        let (command, args) = task.command_line();
        Self {
            kind: task.kind(),
            command,
            args,
            tasks: match task.work {
                Work::Workflow(summary) => Some(summary),
                Work::Command(_) | Work::Action(_) => None,
            },
            id: task.id,
            name: task.name,
            dependencies: task.depends_on,
            status: task.status,
            priority: task.priority,
            attempt: task.attempt,
            created_at: task.created_at,
            started_at: task.started_at,
            completed_at: task.completed_at,
            progress: task.progress,
            output: task.output,
            result: task.result,
            error: task.error,
            group: task.group,
            parent: task.parent,
            labels: task.labels,
            lock: task.lock,
            max_retries: task.retry.max_retries,
            timeout_ms: task.timeout_ms,
            not_before: task.not_before,
            next_attempt_at: task.next_attempt_at,
            last_error: task.last_error,
            attempts: task.attempts,
        }
    }
}
