//! What a user hands in.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::task::{OnEngineLoss, RetryPolicy, SecretReference, TaskId};

/// One task of a submission, with everything that has a default left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    /// What people call it; unique within the submission. Default: the script's file name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The script to run; relative to `cwd`.
    pub script: String,
    /// Structured parameters: JSON on standard input and, while small, in `ORCHESTRATOR_PARAMS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// The working directory: absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables to add to the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretReference>,
    /// Names of tasks of the same submission that must complete first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Tasks that exist already and must complete first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    /// Higher comes first. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// Its fairness group. Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A name to hold while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// When to try again; the engine's defaults where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How long one attempt may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Between SIGTERM and SIGKILL, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// The labels that an engine must have to run it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, String>,
    /// What becomes of it when its engine is lost while it runs, where several engines share a store.
    /// Default `retry`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_engine_loss: Option<OnEngineLoss>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
}

/// Tasks to queue, all of them or none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// The tasks, in any order.
    pub tasks: Vec<NewTask>,
    /// The name of the workflow that they become. Without one they stay tasks of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The same key and the same request again return what the first submission made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// What a submission made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// The workflow, or the only task. `None` when several tasks were submitted without a workflow.
    pub id: Option<TaskId>,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// The tasks, in the order of the request.
    pub tasks: Vec<SubmittedTask>,
    /// Whether an earlier submission with the same key had made them already.
    pub existed: bool,
}

/// One task that a submission made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubmittedTask {
    /// Its identifier.
    pub id: TaskId,
    /// Its name.
    pub name: String,
}
