//! `GET /health`: more than "up".

use axum::extract::State;
use orchestrator_protocol::request::{EngineMode, GetStatus};
use orchestrator_protocol::{Error, ErrorCode};
use serde_json::{Value, json};

use crate::AppState;
use crate::envelope::{ApiError, Envelope};

/// How the engine is: 200, or 503 while the storage accepts no writes.
pub async fn health(State(state): State<AppState>) -> Result<Envelope<Value>, ApiError> {
    let status = state.ask(GetStatus {}).await?;
    let writable = status.storage.writable;
    let data = json!({
        "status": if writable { "ok" } else { "degraded" },
        "version": status.version,
        "engine": status.engine,
        "started_at": status.started_at,
        "mode": status.mode,
        "accepts_work": writable && status.mode == EngineMode::Active,
        "paused": status.paused,
        "storage": status.storage,
        "tasks": status.tasks,
    });
    if writable {
        return Ok(Envelope::new(data));
    }
    let reason = status.storage.reason.unwrap_or_else(|| "it does not say why".into());
    let error = Error::new(ErrorCode::Unavailable, format!("the storage accepts no writes: {reason}"));
    Err(ApiError::from(error).with_data(data))
}
