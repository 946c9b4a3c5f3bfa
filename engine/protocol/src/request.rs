//! Every question the engine answers, in one list.
//!
//! [`Request`] and [`Response`] are made from the list at the end of this file, so that a question
//! cannot be added to one and forgotten in the other, and every front door can be tested against it.
//! A question is a struct that implements [`Call`]; its answer has a type. Questions with many
//! answers are in [`Subscription`].

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::environment::{
    CleanEnvironment, Environment, EnvironmentLogs, EnvironmentRequest, EnvironmentTask, GetEnvironment,
    InjectFault, ListEnvironments, ListTopologies, NamedTopology, PrunePrepared, Pruned, RunEnvironment,
};
use crate::event::EventCursor;
use crate::provision::ProvisionRequest;
use crate::storage::{
    CancelMigration, GetMigration, GetStorage, ListMigrations, Migration, StartMigration, StorageReport,
    ValidateMigration, Validation,
};
use crate::submit::{SubmitRequest, Submitted};
use crate::task::{Task, TaskId, TaskKind, TaskStatus};

/// A question and the type of its answer.
pub trait Call: Into<Request> + Send {
    /// The answer.
    type Reply: Send;
    /// Whether asking twice does no harm, so that it may be sent again after a broken connection.
    const IDEMPOTENT: bool;

    /// Takes the answer out of a response.
    fn reply(response: Response) -> Result<Self::Reply, UnexpectedResponse>;
}

/// An answer that does not fit its question: a fault of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the engine answered something else than was asked")]
pub struct UnexpectedResponse;

macro_rules! calls {
    ($($(#[$doc:meta])* $variant:ident($request:ty) -> $reply:ty, idempotent: $idempotent:literal;)*) => {
        /// A question.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Request { $($(#[$doc])* $variant($request),)* }

        /// An answer, to the question of the same name.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Response { $($(#[$doc])* $variant($reply),)* }

        impl Request {
            /// The names of all questions.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($variant)),*];

            /// The name of this one.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($variant),)* }
            }
        }

        $(
            impl From<$request> for Request {
                fn from(request: $request) -> Self { Self::$variant(request) }
            }
            impl Call for $request {
                type Reply = $reply;
                const IDEMPOTENT: bool = $idempotent;

                fn reply(response: Response) -> Result<$reply, UnexpectedResponse> {
                    match response {
                        Response::$variant(reply) => Ok(reply),
                        _ => Err(UnexpectedResponse),
                    }
                }
            }
        )*
    };
}

/// Asks what the engine is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GetStatus {}

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// The engine's identifier.
    pub engine: String,
    /// Its release and build.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// Its data directory.
    pub data_dir: String,
    /// Its socket.
    pub socket: String,
    /// Where it serves HTTP.
    pub http: Option<String>,
    /// The storage backend.
    pub storage: StorageStatus,
    /// Whether it takes new work.
    pub mode: EngineMode,
    /// Whether the whole queue is paused.
    pub paused: bool,
    /// Groups that are paused.
    pub paused_groups: Vec<String>,
    /// How many attempts may run at once.
    pub max_parallel: u32,
    /// Tasks by state.
    pub tasks: BTreeMap<TaskStatus, u64>,
    /// Tasks of each group by state.
    pub groups: BTreeMap<String, BTreeMap<TaskStatus, u64>>,
    /// The engines of the store, this one among them.
    #[serde(default)]
    pub engines: Vec<EngineMember>,
}

/// One engine of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineMember {
    /// Its identifier: the same over all its lives.
    pub id: String,
    /// The machine's name.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// When it started, by its own clock.
    pub since: DateTime<Utc>,
    /// How it is, as this engine sees it.
    pub state: MemberState,
    /// How many attempts are stored as running on it.
    pub running: u64,
    /// What it is labelled with; tasks may require that.
    pub labels: BTreeMap<String, String>,
    /// Its release.
    pub version: String,
    /// Its data directory.
    pub data_dir: String,
    /// Whether it is the one that answers.
    pub is_this: bool,
}

/// How an engine of a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It has its seat, and renews its lease.
    Alive,
    /// It has not renewed its lease in time, and others have taken over its work or are about to.
    Lost,
    /// It was stopped, with nothing running.
    Left,
    /// A state of a newer release.
    #[serde(other)]
    Unknown,
}

/// Whether an engine takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineMode {
    /// Yes.
    Active,
    /// No: it finishes what runs.
    Draining,
    /// No: it is about to stop.
    Stopping,
}

/// How the storage is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// The backend.
    pub backend: String,
    /// Where it keeps the records.
    pub location: String,
    /// Whether it accepts writes.
    pub writable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Free space in bytes.
    pub free_bytes: Option<u64>,
}

/// Asks for a check of the whole set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Diagnose {}

/// What a check of the set-up found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// One entry a check.
    pub checks: Vec<Check>,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it is.
    pub state: CheckState,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub advice: Option<String>,
}

/// How a thing that was checked is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckState {
    /// As it should be.
    Ok,
    /// Works, but something will not.
    Warning,
    /// Does not work.
    Failed,
}

/// Asks for one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetTask {
    /// Which.
    pub id: TaskId,
}

/// Asks for a page of tasks, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ListTasks {
    /// Only these states; all where empty.
    #[serde(default)]
    pub statuses: Vec<TaskStatus>,
    /// Only this group.
    #[serde(default)]
    pub group: Option<String>,
    /// Only this kind.
    #[serde(default)]
    pub kind: Option<TaskKind>,
    /// Only tasks of this workflow.
    #[serde(default)]
    pub parent: Option<TaskId>,
    /// Only tasks that carry all these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Only tasks created at or after this time.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    /// Only tasks created before this time.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
    /// Only tasks whose name, command or error holds this text, in any case. Looked for after all
    /// other filters.
    #[serde(default)]
    pub text: Option<String>,
    /// Skip so many.
    #[serde(default)]
    pub offset: usize,
    /// At most so many: 1 to 1 000. Default 100.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Go on where an earlier page ended.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Where the next page starts; `None` at the end.
    pub cursor: Option<String>,
}

/// Asks why a task is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainTask {
    /// Which.
    pub id: TaskId,
}

/// Why a task is where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The task.
    pub id: TaskId,
    /// Its name.
    pub name: String,
    /// Its state.
    pub status: TaskStatus,
    /// Everything that keeps it from running, or how it ended.
    pub reasons: Vec<Reason>,
}

/// One thing that keeps a task from running, or how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// What kind of thing.
    pub kind: ReasonKind,
    /// In a sentence.
    pub message: String,
    /// The task it is about: a dependency, the holder of a lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// What kind of thing keeps a task from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonKind {
    /// A dependency has not completed.
    Dependency,
    /// Another task or workflow holds its lock.
    Lock,
    /// Its group runs as many as it may.
    GroupLimit,
    /// It was submitted for a later time.
    NotBefore,
    /// Its last attempt failed a moment ago.
    Backoff,
    /// The queue or its group is paused.
    Paused,
    /// The engine takes nothing new.
    Draining,
    /// All workers are busy.
    Busy,
    /// Other tasks come first.
    Turn,
    /// The storage refuses writes.
    Storage,
    /// It requires an engine of another kind than this one.
    Engine,
    /// It runs.
    Running,
    /// It has ended.
    Ended,
    /// A reason of a newer release.
    #[serde(other)]
    Unknown,
}

/// Asks to call tasks off. A workflow's tasks go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelTask {
    /// Which.
    pub id: TaskId,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Whether to end it also when it is held for an engine that is lost.
    #[serde(default)]
    pub force: bool,
}

/// Asks to try a failed or cancelled task again, and to revive what its end had cancelled. Of a
/// workflow: its failed and cancelled tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryTask {
    /// Which.
    pub id: TaskId,
}

/// What a change of one task, and what came with it, has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changed {
    /// The task after it.
    pub task: Box<Task>,
    /// Others that were changed with it.
    pub others: Vec<TaskId>,
}

/// Asks to start nothing more, in the whole queue or in a group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PauseQueue {
    /// The group; the whole queue without one.
    #[serde(default)]
    pub group: Option<String>,
}

/// Asks to go on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ResumeQueue {
    /// The group; the whole queue without one.
    #[serde(default)]
    pub group: Option<String>,
}

/// What is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePauses {
    /// The whole queue.
    pub all: bool,
    /// These groups.
    pub groups: Vec<String>,
}

/// Asks the engine to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopEngine {
    /// How.
    pub mode: StopMode,
}

/// How an engine stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Takes nothing new, finishes what runs, then stops.
    #[default]
    Drain,
    /// Stops at once and leaves scripts running: the next engine finds them.
    Now,
    /// Cancels what runs, then stops. Nothing else is lost: what was pending stays so.
    Cancel,
}

/// The engine is about to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// How many attempts are under way.
    pub running: u64,
}

calls! {
    /// What the engine is doing.
    Status(GetStatus) -> Box<EngineStatus>, idempotent: true;
    /// A check of the whole set-up.
    Diagnose(Diagnose) -> Diagnosis, idempotent: true;
    /// Queue tasks.
    Submit(SubmitRequest) -> Submitted, idempotent: false;
    /// Queue work on the servers, taskservs or clusters of a settings file.
    Provision(ProvisionRequest) -> Submitted, idempotent: false;
    /// Queue the creation of a test environment.
    CreateEnvironment(EnvironmentRequest) -> EnvironmentTask, idempotent: false;
    /// Queue a run of its tests.
    RunEnvironment(RunEnvironment) -> EnvironmentTask, idempotent: false;
    /// Queue its removal.
    CleanEnvironment(CleanEnvironment) -> EnvironmentTask, idempotent: true;
    /// Do something to its nodes.
    InjectFault(InjectFault) -> Box<Environment>, idempotent: false;
    /// One test environment.
    GetEnvironment(GetEnvironment) -> Box<Environment>, idempotent: true;
    /// Test environments.
    ListEnvironments(ListEnvironments) -> Vec<Environment>, idempotent: true;
    /// Topologies by name.
    ListTopologies(ListTopologies) -> Vec<NamedTopology>, idempotent: true;
    /// Remove prepared images that nothing uses.
    PrunePrepared(PrunePrepared) -> Pruned, idempotent: true;
    /// One task.
    GetTask(GetTask) -> Box<Task>, idempotent: true;
    /// A page of tasks.
    ListTasks(ListTasks) -> TaskPage, idempotent: true;
    /// Why a task is where it is.
    Explain(ExplainTask) -> Explanation, idempotent: true;
    /// Call a task off.
    Cancel(CancelTask) -> Changed, idempotent: true;
    /// Try a task again.
    Retry(RetryTask) -> Changed, idempotent: false;
    /// Start nothing more.
    Pause(PauseQueue) -> QueuePauses, idempotent: true;
    /// Go on.
    Resume(ResumeQueue) -> QueuePauses, idempotent: true;
    /// How the storage is.
    GetStorage(GetStorage) -> Box<StorageReport>, idempotent: true;
    /// Whether the records could be moved.
    ValidateMigration(ValidateMigration) -> Box<Validation>, idempotent: true;
    /// Move the records.
    StartMigration(StartMigration) -> Box<Migration>, idempotent: false;
    /// Migrations that are known.
    ListMigrations(ListMigrations) -> Vec<Migration>, idempotent: true;
    /// One migration.
    GetMigration(GetMigration) -> Box<Migration>, idempotent: true;
    /// Call a migration off.
    CancelMigration(CancelMigration) -> Box<Migration>, idempotent: true;
    /// Stop the engine.
    Stop(StopEngine) -> Stopping, idempotent: false;
}

/// A question with many answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subscription {
    /// The tasks now, each again after every change, until all have ended.
    Watch {
        /// Which.
        ids: Vec<TaskId>,
    },
    /// The output of a task.
    Logs(LogsRequest),
    /// Every change of every task. Never ends by itself.
    Events(EventsRequest),
    /// The output of the nodes of an environment.
    EnvironmentLogs(EnvironmentLogs),
}

impl Subscription {
    /// The names of all of them.
    pub const NAMES: &'static [&'static str] = &["Watch", "Logs", "Events", "EnvironmentLogs"];

    /// The name of this one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Watch { .. } => "Watch",
            Self::Logs(_) => "Logs",
            Self::Events(_) => "Events",
            Self::EnvironmentLogs(_) => "EnvironmentLogs",
        }
    }
}

/// Asks for changes of tasks as they happen. The first item of the answer is
/// [`Listening`](crate::event::Item::Listening) or [`Reset`](crate::event::Item::Reset).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventsRequest {
    /// Only this group.
    #[serde(default)]
    pub group: Option<String>,
    /// Only this task, or the tasks of this workflow.
    #[serde(default)]
    pub task: Option<TaskId>,
    /// Only changes into one of these states; all where empty.
    #[serde(default)]
    pub statuses: Vec<TaskStatus>,
    /// What came after this one; from now on without it.
    #[serde(default)]
    pub since: Option<EventCursor>,
}

/// Asks for the output of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsRequest {
    /// The task. Of a workflow: the tasks that belong to it, one after the other.
    pub id: TaskId,
    /// The attempt, by its number; the newest without one.
    #[serde(default)]
    pub attempt: Option<u32>,
    /// Only the last so many lines.
    #[serde(default)]
    pub tail: Option<u64>,
    /// Go on until the task has ended, over further attempts.
    #[serde(default)]
    pub follow: bool,
    /// Only one of the two outputs.
    #[serde(default)]
    pub stream: Option<crate::event::OutputStream>,
}
