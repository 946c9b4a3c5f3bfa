//! What a task looks like over REST.
//!
//! The stored form of a task may grow with the engine; this one is a promise to programs. Every key is
//! always there, null where there is nothing to say.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator_protocol::task::{
    Attempt, AttemptOutcome, Command, Program, Progress, RetryPolicy, SecretReference, Task, TaskId,
    TaskKind, TaskStatus, Work, Workflow,
};
use serde::Serialize;
use serde_json::Value;

/// A task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskView {
    id: TaskId,
    name: String,
    kind: TaskKind,
    /// A script's path, or what the provisioning program is to do.
    command: String,
    args: Vec<String>,
    /// It runs when these have completed.
    dependencies: Vec<TaskId>,
    status: TaskStatus,
    priority: i32,
    /// How many attempts were begun.
    attempt: u32,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    completed_at: Option<DateTime<Utc>>,
    /// From 0 to 1: what it said itself, or how many of a workflow's tasks have ended.
    progress: Option<f64>,
    /// What it is doing.
    progress_message: Option<String>,
    /// Where its work is counted in steps.
    steps: Option<Steps>,
    /// The last lines of its output.
    output: Option<String>,
    result: Option<Value>,
    /// Why it failed or was cancelled, once it has.
    error: Option<String>,
    /// Why its newest attempt failed, also while it waits for the next.
    last_error: Option<String>,
    cancel_reason: Option<String>,
    group: String,
    /// The workflow it belongs to.
    parent: Option<TaskId>,
    labels: BTreeMap<String, String>,
    lock: Option<String>,
    not_before: Option<DateTime<Utc>>,
    next_attempt_at: Option<DateTime<Utc>>,
    attempts: Vec<AttemptView>,
    retry: RetryPolicy,
    timeout_ms: Option<u64>,
    grace_ms: u64,
    idempotency_key: Option<String>,
    /// The engine that runs it.
    engine: Option<String>,
    /// Of a workflow: how many tasks it has, and how many have ended in which way.
    counts: Option<Workflow>,
    /// Of a command, as all that follow: its working directory.
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    /// Where its secrets come from, never what they are.
    secrets: Option<BTreeMap<String, SecretReference>>,
    params: Option<Value>,
    /// The SHA-256 of the settings file when it was submitted.
    settings_digest: Option<String>,
}

/// How many steps of how many are done.
#[derive(Debug, Clone, Serialize)]
struct Steps {
    done: Option<u64>,
    total: u64,
}

/// One run of a task.
#[derive(Debug, Clone, Serialize)]
struct AttemptView {
    number: u32,
    fence: u64,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    outcome: Option<AttemptOutcome>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        let Attempt { number, fence, started_at, ended_at, outcome, exit_code, signal, error } = attempt;
        Self { number, fence, started_at, ended_at, outcome, exit_code, signal, error }
    }
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        let (command, args) = task.command_line();
        let kind = task.kind();
        let (counts, run) = match task.work {
            Work::Workflow(counts) => (Some(counts), None),
            Work::Command(command) => (None, Some(command)),
            Work::Action(_) => (None, None),
        };
        let progress = fraction(task.progress.as_ref(), counts.as_ref());
        let (steps, progress_message) = match task.progress {
            Some(Progress { done, total, message, .. }) => {
                (total.map(|total| Steps { done, total }), (!message.is_empty()).then_some(message))
            }
            None => (None, None),
        };
        let (cwd, env, secrets, params, settings_digest) = match run {
            Some(Command { program, cwd, env, secrets, params }) => {
                let digest = match program {
                    Program::Worker(call) => Some(call.settings_digest),
                    Program::Script { .. } => None,
                };
                (Some(cwd), Some(env), Some(secrets), params, digest)
            }
            None => (None, None, None, None, None),
        };
        Self {
            id: task.id,
            name: task.name,
            kind,
            command,
            args,
            dependencies: task.depends_on,
            status: task.status,
            priority: task.priority,
            attempt: task.attempt,
            created_at: task.created_at,
            started_at: task.started_at,
            completed_at: task.completed_at,
            progress,
            progress_message,
            steps,
            output: task.output,
            result: task.result,
            error: task.error,
            last_error: task.last_error,
            cancel_reason: task.cancel.map(|cancel| cancel.reason),
            group: task.group,
            parent: task.parent,
            labels: task.labels,
            lock: task.lock,
            not_before: task.not_before,
            next_attempt_at: task.next_attempt_at,
            attempts: task.attempts.into_iter().map(AttemptView::from).collect(),
            retry: task.retry,
            timeout_ms: task.timeout_ms,
            grace_ms: task.grace_ms,
            idempotency_key: task.idempotency_key,
            engine: task.claim.map(|claim| claim.engine),
            counts,
            cwd,
            env,
            secrets,
            params,
            settings_digest,
        }
    }
}

/// The share that is done: as the task reports it, else as a workflow's tasks end.
fn fraction(progress: Option<&Progress>, counts: Option<&Workflow>) -> Option<f64> {
    let counted = || {
        let counts = counts.filter(|counts| counts.total > 0)?;
        Some(counts.ended() as f64 / counts.total as f64)
    };
    progress.and_then(|progress| progress.fraction).or_else(counted)
}
