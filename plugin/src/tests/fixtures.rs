//! Tasks and environments to test with.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator_protocol::environment::{
    Environment, EnvironmentConfig, EnvironmentId, EnvironmentRequest, EnvironmentStatus, TestResult,
};
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

/// An environment with redis on its only node, in this state.
pub fn environment(status: EnvironmentStatus) -> Environment {
    let config = EnvironmentConfig::SingleTaskserv {
        taskserv: "redis".into(),
        base_image: None,
        environment: BTreeMap::new(),
        resources: Default::default(),
        taskserv_options: BTreeMap::new(),
    };
    Environment {
        id: EnvironmentId::generate(),
        name: "redis".into(),
        status,
        request: EnvironmentRequest {
            config,
            infra: None,
            auto_start: true,
            auto_cleanup: true,
            keep_on_failure: true,
            run: Default::default(),
            disk_policy: Default::default(),
            use_prepared: true,
            pull: false,
            expires_after_ms: None,
            cwd: None,
            priority: 0,
            idempotency_key: None,
        },
        engine: "one".into(),
        owner: None,
        network: None,
        nodes: Vec::new(),
        docker: None,
        partitions: Vec::new(),
        runs: 1,
        run_task: None,
        results: Vec::new(),
        task: None,
        error: None,
        created_at: moment(),
        ready_at: None,
        cleaned_at: None,
        expires_at: moment(),
    }
}

/// What verifying redis has found.
pub fn result(passed: bool) -> TestResult {
    TestResult {
        node: "redis".into(),
        name: "verify redis".into(),
        passed,
        exit_code: Some(i32::from(!passed)),
        duration_ms: 1_500,
        output: "PONG".into(),
        error: (!passed).then(|| "no answer".into()),
        result: None,
    }
}
