//! `GET /health`: more than "up".

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::Uri;
use chrono::{DateTime, Utc};
use orchestrator_protocol::request::{EngineMode, EngineStatus, GetStatus, StorageStatus};
use orchestrator_protocol::task::TaskStatus;
use serde::Serialize;
use serde_json::json;

use crate::AppState;
use crate::envelope::{ApiError, Envelope};
use crate::query::Parameters;

/// How the engine is.
#[derive(Debug, Serialize)]
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
    mode: EngineMode,
    /// Whether the queue is paused: somebody's wish, not an illness.
    paused: bool,
    paused_groups: Vec<String>,
    max_parallel: u32,
    storage: StorageStatus,
    /// Tasks by state; every state is there.
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
            storage: engine.storage,
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

/// How the engine is: 200, or 503 while the storage accepts no writes; the same data with both.
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
