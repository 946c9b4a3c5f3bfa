//! Tasks to test with.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator_protocol::event::{EventCursor, TaskEvent};
use orchestrator_protocol::task::{Command, Program, Task, TaskId, TaskStatus, Work, Workflow};

/// A moment.
pub fn moment() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap_or_default()
}

/// A pending command.
pub fn task(name: &str) -> Task {
    let command = Command {
        program: Program::Script { path: format!("/work/{name}.nu") },
        cwd: "/work".into(),
        env: BTreeMap::new(),
        secrets: BTreeMap::new(),
        params: None,
    };
    Task { created_at: moment(), ..Task::new(name, Work::Command(command), "default") }
}

/// A workflow without tasks.
pub fn workflow(name: &str) -> Task {
    Task { work: Work::Workflow(Workflow::default()), ..task(name) }
}

/// The start of a task, as the event with this number.
pub fn event(name: &str, sequence: u64) -> TaskEvent {
    TaskEvent {
        cursor: EventCursor { epoch: "epoch".into(), sequence },
        time: moment(),
        id: TaskId::generate(),
        name: name.into(),
        group: "default".into(),
        parent: None,
        status: TaskStatus::Running,
        attempt: 1,
        progress: None,
        error: None,
    }
}
