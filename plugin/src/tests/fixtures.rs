//! Tasks to test with.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator_protocol::task::{Command, Program, RetryPolicy, Task, TaskId, TaskStatus, Work, Workflow};

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
    Task {
        id: TaskId::generate(),
        name: name.into(),
        work: Work::Command(command),
        status: TaskStatus::Pending,
        priority: 0,
        group: "default".into(),
        parent: None,
        depends_on: Vec::new(),
        labels: BTreeMap::new(),
        lock: None,
        shares_workflow_lock: false,
        retry: RetryPolicy::default(),
        timeout_ms: None,
        grace_ms: 10_000,
        not_before: None,
        idempotency_key: None,
        created_at: moment(),
        started_at: None,
        completed_at: None,
        attempt: 0,
        revived_after: 0,
        fence: 0,
        attempts: Vec::new(),
        next_attempt_at: None,
        last_error: None,
        claim: None,
        cancel: None,
        dependents_cancelled: Vec::new(),
        progress: None,
        result: None,
        output: None,
        error: None,
    }
}

/// A workflow without tasks.
pub fn workflow(name: &str) -> Task {
    Task { work: Work::Workflow(Workflow::default()), ..task(name) }
}
