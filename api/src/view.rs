//! What a task looks like over REST.
//!
//! The stored form of a task may grow with the engine; this one is a promise to programs. Every key is
//! always there, null where there is nothing to say.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator_protocol::request::Changed;
use orchestrator_protocol::task::{
    Attempt, AttemptOutcome, Command, OnEngineLoss, Program, Progress, RetryPolicy, SecretReference, Task,
    TaskId, TaskKind, TaskStatus, Work, Workflow,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::words;

/// A task.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Task)]
pub struct TaskView {
    #[schema(value_type = words::TaskId)]
    id: TaskId,
    name: String,
    #[schema(value_type = words::TaskKind)]
    kind: TaskKind,
    /// A script's path, or what the provisioning program is to do.
    command: String,
    args: Vec<String>,
    /// It runs when these have completed.
    #[schema(value_type = Vec<words::TaskId>)]
    dependencies: Vec<TaskId>,
    #[schema(value_type = words::TaskStatus)]
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
    #[schema(value_type = Option<words::TaskId>)]
    parent: Option<TaskId>,
    labels: BTreeMap<String, String>,
    lock: Option<String>,
    /// The labels that an engine must have to run it.
    requires: BTreeMap<String, String>,
    /// What becomes of it when its engine is lost while it runs.
    #[schema(value_type = words::OnEngineLoss)]
    on_engine_loss: OnEngineLoss,
    not_before: Option<DateTime<Utc>>,
    next_attempt_at: Option<DateTime<Utc>>,
    attempts: Vec<AttemptView>,
    retry: Retry,
    /// How long one attempt may take, in milliseconds.
    timeout_ms: Option<u64>,
    /// Between SIGTERM and SIGKILL, in milliseconds.
    grace_ms: u64,
    idempotency_key: Option<String>,
    /// The engine that runs it.
    engine: Option<String>,
    /// Of a workflow: how many tasks it has, and how many have ended in which way.
    counts: Option<CountsView>,
    /// Of a command, as all that follow: its working directory.
    cwd: Option<String>,
    env: Option<BTreeMap<String, String>>,
    /// Where its secrets come from, never what they are.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    secrets: Option<BTreeMap<String, SecretReference>>,
    params: Option<Value>,
    /// The SHA-256 of the settings file when it was submitted.
    settings_digest: Option<String>,
}

/// How far a task is, as far as it tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgressView {
    pub fraction: Option<f64>,
    pub message: Option<String>,
    pub steps: Option<Steps>,
}

impl From<Option<Progress>> for ProgressView {
    fn from(progress: Option<Progress>) -> Self {
        let Some(Progress { fraction, done, total, message }) = progress else { return Self::default() };
        Self {
            fraction,
            message: (!message.is_empty()).then_some(message),
            steps: total.map(|total| Steps { done, total }),
        }
    }
}

/// How many steps of how many are done.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Steps {
    done: Option<u64>,
    total: u64,
}

/// How many tasks a workflow has, and how many of them have ended in which way.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = WorkflowCounts)]
pub struct CountsView {
    total: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

impl From<Workflow> for CountsView {
    fn from(Workflow { total, completed, failed, cancelled }: Workflow) -> Self {
        Self { total, completed, failed, cancelled }
    }
}

/// When a failed attempt is followed by another: attempt n waits `base_ms * 2^(n-1)`, with jitter, at
/// most `cap_ms`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RetryPolicy)]
pub struct Retry {
    /// How many attempts after the first; at most 100.
    max_retries: u32,
    /// The first wait, in milliseconds.
    base_ms: u64,
    /// The longest wait, in milliseconds.
    cap_ms: u64,
}

impl From<RetryPolicy> for Retry {
    fn from(RetryPolicy { max_retries, base_ms, cap_ms }: RetryPolicy) -> Self {
        Self { max_retries, base_ms, cap_ms }
    }
}

impl From<Retry> for RetryPolicy {
    fn from(Retry { max_retries, base_ms, cap_ms }: Retry) -> Self {
        Self { max_retries, base_ms, cap_ms }
    }
}

/// One run of a task.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    /// 1 for the first.
    number: u32,
    /// Greater than those of all attempts of this task before.
    fence: u64,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    #[schema(value_type = Option<words::AttemptOutcome>)]
    outcome: Option<AttemptOutcome>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    error: Option<String>,
}

/// What a change of one task, and what came with it, has changed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Changed)]
pub struct ChangedView {
    /// The task after it.
    task: TaskView,
    /// Others that were changed with it.
    #[schema(value_type = Vec<words::TaskId>)]
    others: Vec<TaskId>,
}

impl From<Changed> for ChangedView {
    fn from(Changed { task, others }: Changed) -> Self {
        Self { task: (*task).into(), others }
    }
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
        let ProgressView { fraction, message, steps } = task.progress.into();
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
            progress: fraction.or_else(|| counted(counts.as_ref()?)),
            progress_message: message,
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
            requires: task.requires,
            on_engine_loss: task.on_engine_loss,
            not_before: task.not_before,
            next_attempt_at: task.next_attempt_at,
            attempts: task.attempts.into_iter().map(AttemptView::from).collect(),
            retry: task.retry.into(),
            timeout_ms: task.timeout_ms,
            grace_ms: task.grace_ms,
            idempotency_key: task.idempotency_key,
            engine: task.claim.map(|claim| claim.engine),
            counts: counts.map(CountsView::from),
            cwd,
            env,
            secrets,
            params,
            settings_digest,
        }
    }
}

/// The share of a workflow that has ended.
fn counted(counts: &Workflow) -> Option<f64> {
    (counts.total > 0).then(|| counts.ended() as f64 / counts.total as f64)
}
