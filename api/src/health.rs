//! How the engine is: `GET /health`, more than "up", and `GET /ready`, one yes or no.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use chrono::{DateTime, Utc};
use orchestrator_protocol::request::{EngineMode, EngineStatus, GetStatus, StorageStatus};
use orchestrator_protocol::task::TaskStatus;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::envelope::{ApiError, Envelope};
use crate::query::Parameters;
use crate::state::AppState;
use crate::status::StorageView;
use crate::words;

/// How the engine is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `degraded` while something keeps it from taking work.
    status: &'static str,
    /// What that is, in sentences.
    reasons: Vec<String>,
    /// Whether it takes work.
    accepts_work: bool,
    version: String,
    /// The engine's identifier.
    engine: String,
    pid: u32,
    started_at: DateTime<Utc>,
    #[schema(value_type = words::EngineMode)]
    mode: EngineMode,
    /// Whether the queue is paused: somebody's wish, not an illness.
    paused: bool,
    paused_groups: Vec<String>,
    max_parallel: u32,
    storage: StorageView,
    /// Tasks by state; every state is there.
    #[schema(value_type = BTreeMap<String, u64>)]
    tasks: BTreeMap<TaskStatus, u64>,
}

impl From<EngineStatus> for Health {
    fn from(engine: EngineStatus) -> Self {
        let reasons: Vec<_> =
            [no_writes(&engine.storage), no_new_work(engine.mode)].into_iter().flatten().collect();
        let count = |status| (status, engine.tasks.get(&status).copied().unwrap_or(0));
        Self {
            status: if reasons.is_empty() { "ok" } else { "degraded" },
            accepts_work: reasons.is_empty(),
            reasons,
            tasks: TaskStatus::ALL.into_iter().map(count).collect(),
            version: engine.version,
            engine: engine.engine,
            pid: engine.pid,
            started_at: engine.started_at,
            mode: engine.mode,
            paused: engine.paused,
            paused_groups: engine.paused_groups,
            max_parallel: engine.max_parallel,
            storage: engine.storage.into(),
        }
    }
}

fn no_writes(storage: &StorageStatus) -> Option<String> {
    let reason = storage.reason.as_deref().unwrap_or("it does not say why");
    (!storage.writable).then(|| format!("the storage accepts no writes: {reason}"))
}

fn no_new_work(mode: EngineMode) -> Option<String> {
    match mode {
        EngineMode::Active => None,
        EngineMode::Draining => Some("the engine takes nothing new and finishes what runs".to_owned()),
        EngineMode::Stopping => Some("the engine is about to stop".to_owned()),
    }
}

/// How the engine is
///
/// 200, or 503 while the storage accepts no writes; the same data with both.
#[utoipa::path(
    get, path = "/health", operation_id = "getHealth", tag = "engine",
    responses((status = 200, description = "It is up.", body = Envelope<Health>)),
    extensions(("x-request" = json!("Status"))),
)]
pub async fn health(State(state): State<AppState>, uri: Uri) -> Result<Envelope<Health>, ApiError> {
    Parameters::of(&uri).finish()?;
    let status = state.ask(GetStatus {}).await?;
    let no_writes = no_writes(&status.storage);
    let health = Health::from(*status);
    match no_writes {
        None => Ok(Envelope::new(health)),
        Some(reason) => Err(ApiError::unavailable(reason).with_data(json!(health))),
    }
}

/// Whether the engine takes work.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    ready: bool,
    /// Why not, in sentences.
    reasons: Vec<String>,
    #[schema(value_type = words::EngineMode)]
    mode: EngineMode,
    /// Whether the storage accepts writes.
    storage_writable: bool,
}

/// Whether the engine takes work
///
/// 200 when the storage accepts writes and the engine is active, else 503; the same data with both. A
/// paused queue takes work too.
#[utoipa::path(
    get, path = "/ready", operation_id = "getReadiness", tag = "engine",
    responses((status = 200, description = "It takes work.", body = Envelope<Readiness>)),
    extensions(("x-request" = json!("Status"))),
)]
pub async fn ready(State(state): State<AppState>, uri: Uri) -> Result<Envelope<Readiness>, ApiError> {
    Parameters::of(&uri).finish()?;
    let status = state.ask(GetStatus {}).await?;
    let reasons: Vec<_> =
        [no_writes(&status.storage), no_new_work(status.mode)].into_iter().flatten().collect();
    let why_not = reasons.join("; ");
    let readiness = Readiness {
        ready: reasons.is_empty(),
        reasons,
        mode: status.mode,
        storage_writable: status.storage.writable,
    };
    match readiness.ready {
        true => Ok(Envelope::new(readiness)),
        false => Err(ApiError::unavailable(why_not).with_data(json!(readiness))),
    }
}
