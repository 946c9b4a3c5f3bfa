//! Tasks, attempts and workflows: what the queue holds and what its users see.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::environment::{EnvironmentId, RunOptions};
pub use crate::state::TaskStatus;

/// The identifier of a task: a UUID v7, so that sorting by it sorts by time of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub Uuid);

impl TaskId {
    /// A new identifier, greater than all that this process made before.
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = InvalidTaskId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text.trim())
            .map(Self)
            .map_err(|source| InvalidTaskId { text: text.to_owned(), source })
    }
}

/// A text that is no task's identifier.
#[derive(Debug, Clone, thiserror::Error)]
#[error("'{text}' is not a task id: it should look like 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidTaskId {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    #[source]
    pub source: uuid::Error,
}

/// What a task consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Runs a program.
    Command,
    /// A step that the engine performs itself; repeating it is harmless.
    Action,
    /// Its work is other tasks.
    Workflow,
}

impl TaskKind {
    /// The name, as stored and as shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Action => "action",
            Self::Workflow => "workflow",
        }
    }
}

/// The work of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Runs a program.
    Command(Command),
    /// A step of the engine's own.
    Action(Action),
    /// The sum of other tasks.
    Workflow(Workflow),
}

impl Work {
    /// What kind of work it is.
    pub fn kind(&self) -> TaskKind {
        match self {
            Self::Command(_) => TaskKind::Command,
            Self::Action(_) => TaskKind::Action,
            Self::Workflow(_) => TaskKind::Workflow,
        }
    }
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Which.
    pub program: Program,
    /// The working directory: the submitter's. Absolute.
    pub cwd: String,
    /// What the submitter adds to the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets by name; only the references are stored, and resolved when an attempt starts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretReference>,
    /// Structured parameters, handed over as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
}

/// Which program a command runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A script of the user's. A `.nu` file is run by the configured Nushell, any other file by
    /// itself, so it must be executable.
    Script {
        /// Its absolute path.
        path: String,
    },
    /// The provisioning program, with words such as `server create web-01`.
    Worker(WorkerCall),
}

/// A call of the provisioning program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCall {
    /// What to do: `server create`, `server names`.
    pub operation: Vec<String>,
    /// To what: names that have been checked.
    #[serde(default)]
    pub names: Vec<String>,
    /// The infra.
    pub infra: String,
    /// The settings file's absolute path.
    pub settings: String,
    /// The SHA-256 of the settings file when the task was submitted, in hexadecimal.
    pub settings_digest: String,
    /// Only plan.
    #[serde(default)]
    pub check: bool,
}

/// Where a secret comes from: `env:NAME` (the engine's environment) or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretReference {
    /// A variable of the engine's environment.
    Environment(String),
    /// A file that the engine can read; one newline at its end is not part of the secret.
    File(String),
}

impl TryFrom<String> for SecretReference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Environment(name.to_owned())),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.to_owned())),
            _ => {
                Err("a secret is a reference, env:NAME or file:/ABSOLUTE/PATH, never the value itself"
                    .to_owned())
            }
        }
    }
}

impl From<SecretReference> for String {
    fn from(reference: SecretReference) -> Self {
        match reference {
            SecretReference::Environment(name) => format!("env:{name}"),
            SecretReference::File(path) => format!("file:{path}"),
        }
    }
}

/// A step that the engine performs itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Reads the plan that a command of the provisioning program reported, and adds the tasks in it to
    /// the workflow that this action belongs to. The tasks and the end of the action are one commit.
    #[serde(alias = "add_servers")]
    AddTasks {
        /// The command that reports the plan.
        #[serde(alias = "names_from")]
        plan_from: TaskId,
        /// What the calls of the new tasks have in common. Its operation is for a plan that is only a
        /// list of servers.
        call: WorkerCall,
        /// What each new task inherits.
        defaults: Box<TaskDefaults>,
    },
    /// Makes the nodes of a test environment, with the taskservs on them.
    CreateEnvironment {
        /// Which.
        environment: EnvironmentId,
    },
    /// Runs the tests of a test environment.
    RunEnvironment {
        /// Which.
        environment: EnvironmentId,
        /// What the run does.
        run: Box<RunOptions>,
        /// Where the user's scripts are.
        #[serde(default)]
        cwd: Option<String>,
    },
    /// Removes a test environment.
    CleanEnvironment {
        /// Which.
        environment: EnvironmentId,
    },
}

/// What tasks that the engine adds to a workflow take over from the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskDefaults {
    /// The working directory.
    pub cwd: String,
    /// The environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Secrets by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretReference>,
    /// When to try again.
    pub retry: RetryPolicy,
    /// How long an attempt may take, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// A workflow: what its tasks add up to. Changed in the same commit as the task that ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Workflow {
    /// How many tasks it has.
    pub total: u64,
    /// How many have completed.
    pub completed: u64,
    /// How many have failed for good.
    pub failed: u64,
    /// How many were cancelled.
    pub cancelled: u64,
}

impl Workflow {
    /// How many have ended.
    pub fn ended(&self) -> u64 {
        self.completed + self.failed + self.cancelled
    }

    /// The state in which all of its tasks leave it, once all have ended.
    pub fn outcome(&self) -> Option<TaskStatus> {
        if self.ended() < self.total {
            return None;
        }
        Some(match (self.failed, self.cancelled) {
            (0, 0) => TaskStatus::Completed,
            (0, _) => TaskStatus::Cancelled,
            _ => TaskStatus::Failed,
        })
    }

    /// Takes note that a task of it went from one state to another.
    pub fn count(&mut self, from: TaskStatus, to: TaskStatus) {
        if let Some(number) = self.number_of(from) {
            *number = number.saturating_sub(1);
        }
        if let Some(number) = self.number_of(to) {
            *number += 1;
        }
    }

    fn number_of(&mut self, status: TaskStatus) -> Option<&mut u64> {
        match status {
            TaskStatus::Completed => Some(&mut self.completed),
            TaskStatus::Failed => Some(&mut self.failed),
            TaskStatus::Cancelled => Some(&mut self.cancelled),
            TaskStatus::Pending | TaskStatus::Running => None,
        }
    }
}

/// When a failed attempt is followed by another: attempt `n` waits `base * 2^(n-1)`, with jitter,
/// at most `cap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How many attempts after the first; at most 100.
    pub max_retries: u32,
    /// The first wait, in milliseconds.
    pub base_ms: u64,
    /// The longest wait, in milliseconds.
    pub cap_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: 3, base_ms: 1_000, cap_ms: 60_000 }
    }
}

/// How far the work of a task is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<f64>,
    /// Steps done, where the work is counted in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Steps in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What it is doing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// Well.
    Succeeded,
    /// The program failed.
    Failed,
    /// It took longer than it may.
    TimedOut,
    /// It was called off.
    Cancelled,
    /// Whoever supervised it is gone without a word.
    Lost,
    /// The program could not be started.
    NotStarted,
    /// An outcome of a newer release.
    #[serde(other)]
    Unknown,
}

/// One run of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// Its fence: greater than those of all attempts of this task before.
    pub fence: u64,
    /// When it was claimed, and then when the program started.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AttemptOutcome>,
    /// The program's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Who holds a running task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The engine.
    pub engine: String,
    /// The boot of the machine on which it was claimed.
    pub boot_id: String,
    /// The slot of its group, where the group has a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Whether its script ends when the engine cannot renew its lease, so that another engine may begin the
    /// next attempt then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_leased: bool,
}

/// What becomes of a running task whose engine is lost, where several engines share a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnEngineLoss {
    /// Its script is ended, and the attempt counts as lost: another engine begins the next one.
    #[default]
    Retry,
    /// Its script goes on, and nobody takes the task over until its engine is back or somebody calls it off
    /// by force.
    Hold,
}

impl OnEngineLoss {
    /// Whether it is what holds for tasks that do not say otherwise.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Why and by whom a task is called off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequest {
    /// Why.
    pub reason: String,
    /// When.
    pub at: DateTime<Utc>,
    /// The task whose end caused it: a dependency or the workflow. Reviving that one revives this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_by: Option<TaskId>,
}

/// Between SIGTERM and SIGKILL, in milliseconds, unless a task says otherwise.
pub const DEFAULT_GRACE_MS: u64 = 10_000;

/// A task, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its identifier.
    pub id: TaskId,
    /// What people call it.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// Its state.
    pub status: TaskStatus,
    /// Higher comes first.
    pub priority: i32,
    /// Groups take turns.
    pub group: String,
    /// The workflow it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TaskId>,
    /// Runs when these have completed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    /// The user's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A name that only one at a time may hold. A task holds it while it runs; a workflow from the
    /// start of its first task to the end of its last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<String>,
    /// Whether its lock is held by its workflow, for all of its tasks together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares_workflow_lock: bool,
    /// When to try again.
    pub retry: RetryPolicy,
    /// How long one attempt may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// The labels that an engine must have to run it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requires: BTreeMap<String, String>,
    /// What becomes of it when its engine is lost while it runs.
    #[serde(default, skip_serializing_if = "OnEngineLoss::is_default")]
    pub on_engine_loss: OnEngineLoss,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<DateTime<Utc>>,
    /// The key under which it was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// When its first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<DateTime<Utc>>,
    /// How many attempts were begun.
    #[serde(default)]
    pub attempt: u32,
    /// How many of them before it was last revived; retries are counted from there.
    #[serde(default)]
    pub revived_after: u32,
    /// The fence of the newest attempt; grows with each claim.
    #[serde(default)]
    pub fence: u64,
    /// Every attempt that ended or is under way, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// When the next attempt may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Why the newest attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Who holds it while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// That it is to be called off, or why it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelRequest>,
    /// Tasks that were cancelled because this one failed or was cancelled; reviving it revives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents_cancelled: Vec<TaskId>,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// What it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The last lines of its output, at most 4 KiB; the logs have all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Why it failed or was cancelled, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Task {
    /// A pending task that was just submitted, with a new identifier and every default.
    pub fn new(name: impl Into<String>, work: Work, group: impl Into<String>) -> Self {
        Self {
            id: TaskId::generate(),
            name: name.into(),
            work,
            status: TaskStatus::Pending,
            priority: 0,
            group: group.into(),
            parent: None,
            depends_on: Vec::new(),
            labels: BTreeMap::new(),
            lock: None,
            shares_workflow_lock: false,
            retry: RetryPolicy::default(),
            timeout_ms: None,
            grace_ms: DEFAULT_GRACE_MS,
            requires: BTreeMap::new(),
            on_engine_loss: OnEngineLoss::default(),
            not_before: None,
            idempotency_key: None,
            created_at: Utc::now(),
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

    /// What kind of work it is.
    pub fn kind(&self) -> TaskKind {
        self.work.kind()
    }

    /// What a reader of a list sees as the command: the script's path or the worker's words.
    pub fn command_line(&self) -> (String, Vec<String>) {
        match &self.work {
            Work::Command(command) => match &command.program {
                Program::Script { path } => (path.clone(), Vec::new()),
                Program::Worker(call) => {
                    let mut args = call.names.clone();
                    args.extend([
                        "--infra".into(),
                        call.infra.clone(),
                        "--settings".into(),
                        call.settings.clone(),
                    ]);
                    if call.check {
                        args.push("--check".into());
                    }
                    (call.operation.join(" "), args)
                }
            },
            Work::Action(action) => match action {
                Action::AddTasks { .. } => ("add tasks".into(), Vec::new()),
                Action::CreateEnvironment { environment } => {
                    ("create environment".into(), vec![environment.to_string()])
                }
                Action::RunEnvironment { environment, .. } => {
                    ("run environment".into(), vec![environment.to_string()])
                }
                Action::CleanEnvironment { environment } => {
                    ("clean environment".into(), vec![environment.to_string()])
                }
            },
            Work::Workflow(_) => ("workflow".into(), Vec::new()),
        }
    }
}
