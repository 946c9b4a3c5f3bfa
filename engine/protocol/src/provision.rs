//! What a user wants done to an infra: servers, taskservs and clusters of a settings file.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::task::{RetryPolicy, SecretReference};

/// What is to be provisioned, out of a settings file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// Servers.
    Servers {
        /// Which; all that the settings file names where empty.
        #[serde(default)]
        servers: Vec<String>,
    },
    /// One installable service.
    Taskserv {
        /// Which.
        taskserv: String,
        /// On which servers; on all that have it by the settings file where empty.
        #[serde(default)]
        servers: Vec<String>,
    },
    /// The servers of a cluster, and the taskservs on them.
    Cluster {
        /// The name or the type of clusters in the settings file.
        cluster_type: String,
    },
}

impl Default for Target {
    fn default() -> Self {
        Self::Servers { servers: Vec::new() }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Bring it up as the settings file describes it. What is there already is left as it is.
    #[default]
    Create,
    /// Look whether it works, and change nothing. Of taskservs and clusters.
    Verify,
    /// Remove it. Of servers and clusters.
    Delete,
}

impl Operation {
    /// Its name, as sent and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Verify => "verify",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Asks for work on an infra. It becomes a workflow with a task for each step that can run, and be
/// tried again, by itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvisionRequest {
    /// The infra; also the fairness group and the lock.
    pub infra: String,
    /// The settings file; relative to `cwd`.
    pub settings: String,
    /// What it is about.
    pub target: Target,
    /// What is to be done with it.
    #[serde(default)]
    pub operation: Operation,
    /// Change nothing and return the plan.
    #[serde(default)]
    pub check_mode: bool,
    /// The working directory: absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables to add to the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretReference>,
    /// Higher comes first. Default 0.
    #[serde(default)]
    pub priority: i32,
    /// Do not wait for other workflows of the same infra.
    #[serde(default)]
    pub allow_concurrent: bool,
    /// When to try again; the engine's defaults where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// How long one attempt of one task may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The same key and the same request again return what the first submission made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}
