//! The bodies of submissions. What stands in none of them is refused by its name.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use orchestrator_protocol::provision::{Operation, ProvisionRequest, Target};
use orchestrator_protocol::submit as protocol;
use orchestrator_protocol::task::{OnEngineLoss, SecretReference, TaskId};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::body::{object_if_any, objects};
use crate::view::Retry;
use crate::words;

/// A graph of scripts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GraphRequest {
    /// The tasks, in any order.
    #[serde(deserialize_with = "objects")]
    tasks: Vec<NewTask>,
    /// The name of the workflow that they become. Without one they stay tasks of their own.
    workflow: Option<String>,
    /// The same key and the same request again return what the first submission made.
    pub(crate) idempotency_key: Option<String>,
    /// Answer when all has ended.
    #[serde(default)]
    pub(crate) wait: bool,
}

impl GraphRequest {
    pub(crate) fn into_request(self) -> protocol::SubmitRequest {
        let Self { tasks, workflow, idempotency_key, wait: _ } = self;
        let tasks = tasks.into_iter().map(protocol::NewTask::from).collect();
        protocol::SubmitRequest { tasks, workflow, idempotency_key }
    }
}

/// One task of a graph.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTaskRequest)]
pub struct NewTask {
    /// What people call it; unique within the submission. Default: the script's file name.
    name: Option<String>,
    /// The script to run; relative to `cwd`.
    script: String,
    /// Structured parameters: JSON on standard input and, while small, in `ORCHESTRATOR_PARAMS`.
    params: Option<Value>,
    /// The working directory: absolute. Default: the engine's own.
    cwd: Option<String>,
    /// Variables to add to the environment.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Secrets by name: `env:NAME` (of the engine's environment) or `file:/ABSOLUTE/PATH`.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    secrets: BTreeMap<String, SecretReference>,
    /// Names of tasks of the same submission that must complete first.
    #[serde(default)]
    after: Vec<String>,
    /// Tasks that exist already and must complete first.
    #[serde(default)]
    #[schema(value_type = Vec<words::TaskId>)]
    depends_on: Vec<TaskId>,
    /// Higher comes first.
    #[serde(default)]
    priority: i32,
    /// Its fairness group. Default `default`.
    group: Option<String>,
    /// Labels.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// A name to hold while it runs.
    lock: Option<String>,
    /// When to try again; the engine's defaults where left out.
    #[serde(default, deserialize_with = "object_if_any")]
    retry: Option<Retry>,
    /// How long one attempt may take, in milliseconds.
    timeout_ms: Option<u64>,
    /// Between SIGTERM and SIGKILL, in milliseconds.
    grace_ms: Option<u64>,
    /// The labels that an engine must have to run it.
    #[serde(default)]
    requires: BTreeMap<String, String>,
    /// What becomes of it when its engine is lost while it runs, where several engines share a store.
    /// Default `retry`.
    #[schema(value_type = Option<words::OnEngineLoss>)]
    on_engine_loss: Option<OnEngineLoss>,
    /// Not before this time.
    not_before: Option<DateTime<Utc>>,
}

impl From<NewTask> for protocol::NewTask {
    fn from(new: NewTask) -> Self {
        Self {
            name: new.name,
            script: new.script,
            params: new.params,
            cwd: new.cwd,
            env: new.env,
            secrets: new.secrets,
            after: new.after,
            depends_on: new.depends_on,
            priority: new.priority,
            group: new.group,
            labels: new.labels,
            lock: new.lock,
            retry: new.retry.map(Into::into),
            timeout_ms: new.timeout_ms,
            grace_ms: new.grace_ms,
            requires: new.requires,
            on_engine_loss: new.on_engine_loss,
            not_before: new.not_before,
        }
    }
}

/// A body about an infra: its own fields, and those that all of them have.
macro_rules! provisioning {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            /// The infra; also the fairness group and the lock.
            infra: String,
            /// The settings file. A relative path starts at the engine's own working directory.
            settings: String,
            $($(#[$attribute])* pub(crate) $field: $type,)*
            /// Change nothing and return the plan.
            #[serde(default)]
            check_mode: bool,
            /// Answer when all has ended.
            #[serde(default)]
            pub(crate) wait: bool,
            /// Variables to add to the environment.
            #[serde(default)]
            env: BTreeMap<String, String>,
            /// Secrets by name: `env:NAME` (of the engine's environment) or `file:/ABSOLUTE/PATH`.
            #[serde(default)]
            #[schema(value_type = BTreeMap<String, String>)]
            secrets: BTreeMap<String, SecretReference>,
            /// Higher comes first.
            #[serde(default)]
            priority: i32,
            /// Do not wait for other workflows of the same infra.
            #[serde(default)]
            allow_concurrent: bool,
            /// When to try again; the engine's defaults where left out.
            #[serde(default, deserialize_with = "object_if_any")]
            retry: Option<Retry>,
            /// How long one attempt of one task may take, in milliseconds.
            timeout_ms: Option<u64>,
            /// The same key and the same request again return what the first submission made.
            pub(crate) idempotency_key: Option<String>,
        }

        impl $name {
            pub(crate) fn into_request(self, target: Target, operation: Operation) -> ProvisionRequest {
                ProvisionRequest {
                    infra: self.infra,
                    settings: self.settings,
                    target,
                    operation,
                    check_mode: self.check_mode,
                    // Whoever asks over HTTP has no working directory that the engine could know.
                    cwd: None,
                    env: self.env,
                    secrets: self.secrets,
                    priority: self.priority,
                    allow_concurrent: self.allow_concurrent,
                    retry: self.retry.map(Into::into),
                    timeout_ms: self.timeout_ms,
                    idempotency_key: self.idempotency_key,
                }
            }
        }
    };
}

provisioning! {
    /// Servers to create.
    CreateServersRequest {
        /// Which; all that the settings file names where empty, null or left out.
        servers: Option<Vec<String>>,
    }
}

provisioning! {
    /// Servers to delete.
    DeleteServersRequest {
        /// Which: at least one.
        servers: Vec<String>,
    }
}

provisioning! {
    /// A taskserv to create or verify.
    TaskservRequest {
        /// Which.
        taskserv: String,
        /// What is to be done. `create` where it is left out.
        #[serde(default)]
        operation: TaskservOperation,
        /// On which servers; on all that have it by the settings file where empty, null or left out.
        servers: Option<Vec<String>>,
    }
}

provisioning! {
    /// A cluster to create, verify or delete.
    ClusterRequest {
        /// The name or the type of clusters in the settings file.
        cluster_type: String,
        /// What is to be done. `create` where it is left out.
        #[serde(default)]
        #[schema(value_type = words::Operation)]
        operation: Operation,
    }
}

/// What can be done with a taskserv: install and start it; look whether it works and change nothing.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskservOperation {
    /// Install and start it.
    #[default]
    Create,
    /// Look whether it works.
    Verify,
}

impl From<TaskservOperation> for Operation {
    fn from(operation: TaskservOperation) -> Self {
        match operation {
            TaskservOperation::Create => Self::Create,
            TaskservOperation::Verify => Self::Verify,
        }
    }
}
