//! What the engine is doing, `GET /status`, and a check of the whole set-up, `GET /doctor`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use chrono::{DateTime, Utc};
use orchestrator_protocol::request::{
    Check, CheckState, Diagnose, Diagnosis, EngineMember, EngineMode, EngineStatus, GetStatus, MemberState,
    StorageStatus,
};
use orchestrator_protocol::task::TaskStatus;
use serde::Serialize;
use utoipa::ToSchema;

use crate::envelope::{ApiError, Envelope};
use crate::query::Parameters;
use crate::state::AppState;
use crate::words;

/// What the engine is doing.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EngineStatus)]
pub struct StatusView {
    /// The engine's identifier.
    engine: String,
    /// Its release and build.
    version: String,
    pid: u32,
    started_at: DateTime<Utc>,
    data_dir: String,
    /// Its local socket.
    socket: String,
    /// Where it serves HTTP.
    http: Option<String>,
    storage: StorageView,
    #[schema(value_type = words::EngineMode)]
    mode: EngineMode,
    /// Whether the whole queue is paused.
    paused: bool,
    paused_groups: Vec<String>,
    /// How many attempts may run at once.
    max_parallel: u32,
    /// Tasks by state.
    #[schema(value_type = BTreeMap<String, u64>)]
    tasks: BTreeMap<TaskStatus, u64>,
    /// Tasks of each group by state.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, u64>>)]
    groups: BTreeMap<String, BTreeMap<TaskStatus, u64>>,
    /// The engines of the store, this one among them.
    engines: Vec<MemberView>,
}

/// One engine of a store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EngineMember)]
pub struct MemberView {
    /// The same over all its lives.
    id: String,
    /// The machine's name.
    host: String,
    pid: u32,
    /// When it started, by its own clock.
    since: DateTime<Utc>,
    #[schema(value_type = words::MemberState)]
    state: MemberState,
    /// How many attempts are stored as running on it.
    running: u64,
    /// Tasks can require these.
    labels: BTreeMap<String, String>,
    version: String,
    data_dir: String,
    /// Whether it is the one that answers.
    is_this: bool,
}

impl From<EngineMember> for MemberView {
    fn from(member: EngineMember) -> Self {
        let EngineMember { id, host, pid, since, state, running, labels, version, data_dir, is_this } =
            member;
        Self { id, host, pid, since, state, running, labels, version, data_dir, is_this }
    }
}

impl From<EngineStatus> for StatusView {
    fn from(status: EngineStatus) -> Self {
        let EngineStatus {
            engine,
            version,
            pid,
            started_at,
            data_dir,
            socket,
            http,
            storage,
            mode,
            paused,
            paused_groups,
            max_parallel,
            tasks,
            groups,
            engines,
        } = status;
        Self {
            engine,
            version,
            pid,
            started_at,
            data_dir,
            socket,
            http,
            storage: storage.into(),
            mode,
            paused,
            paused_groups,
            max_parallel,
            tasks,
            groups,
            engines: engines.into_iter().map(MemberView::from).collect(),
        }
    }
}

/// How the storage is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageStatus)]
pub struct StorageView {
    backend: String,
    /// Where it keeps the records.
    location: String,
    /// Whether it accepts writes.
    writable: bool,
    /// Why not.
    reason: Option<String>,
    /// Free space in bytes.
    free_bytes: Option<u64>,
}

impl From<StorageStatus> for StorageView {
    fn from(StorageStatus { backend, location, writable, reason, free_bytes }: StorageStatus) -> Self {
        Self { backend, location, writable, reason, free_bytes }
    }
}

/// What the engine is doing
#[utoipa::path(
    get, path = "/status", operation_id = "getStatus", tag = "engine",
    responses((status = 200, description = "What the engine is doing.", body = Envelope<StatusView>)),
    extensions(("x-request" = json!("Status"))),
)]
pub async fn status(State(state): State<AppState>, uri: Uri) -> Result<Envelope<StatusView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new((*state.ask(GetStatus {}).await?).into()))
}

/// What a check of the set-up found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Diagnosis)]
pub struct DiagnosisView {
    /// One entry a check.
    checks: Vec<CheckView>,
}

/// One thing that was checked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Check)]
pub struct CheckView {
    /// What was looked at.
    name: String,
    #[schema(value_type = words::CheckState)]
    state: CheckState,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

impl From<Check> for CheckView {
    fn from(Check { name, state, found, advice }: Check) -> Self {
        Self { name, state, found, advice }
    }
}

/// A check of the whole set-up
///
/// 200 whatever it finds.
#[utoipa::path(
    get, path = "/doctor", operation_id = "diagnose", tag = "engine",
    responses((status = 200, description = "What was found, and what to do.", body = Envelope<DiagnosisView>)),
    extensions(("x-request" = json!("Diagnose"))),
)]
pub async fn doctor(State(state): State<AppState>, uri: Uri) -> Result<Envelope<DiagnosisView>, ApiError> {
    Parameters::of(&uri).finish()?;
    let Diagnosis { checks } = state.ask(Diagnose {}).await?;
    Ok(Envelope::new(DiagnosisView { checks: checks.into_iter().map(CheckView::from).collect() }))
}
