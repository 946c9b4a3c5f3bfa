//! What can be done with the queue and the engine as a whole: pause, resume, stop.

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use orchestrator_protocol::request::{PauseQueue, QueuePauses, ResumeQueue, StopEngine, StopMode, Stopping};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::SentOrDefault;
use crate::envelope::{ApiError, Envelope};
use crate::query::Parameters;
use crate::state::AppState;
use crate::words;

/// Nothing that could be said: a body may be left out, or be `{}`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EmptyRequest)]
pub struct Nothing {}

/// Which part of the queue it is about.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueRequest {
    /// The group; the whole queue without one.
    group: Option<String>,
}

/// What is paused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueuePauses)]
pub struct PausesView {
    /// Whether the whole queue is.
    all: bool,
    /// The groups that are.
    groups: Vec<String>,
}

impl From<QueuePauses> for PausesView {
    fn from(QueuePauses { all, groups }: QueuePauses) -> Self {
        Self { all, groups }
    }
}

/// Start nothing more
///
/// In the whole queue or in a group. What runs goes on, and new work is still taken.
#[utoipa::path(
    post, path = "/queue/pause", operation_id = "pauseQueue", tag = "queue",
    request_body = Option<QueueRequest>,
    responses((status = 200, description = "What is paused now.", body = Envelope<PausesView>)),
    extensions(("x-request" = json!("Pause"))),
)]
pub async fn pause(
    State(state): State<AppState>,
    uri: Uri,
    SentOrDefault(QueueRequest { group }): SentOrDefault<QueueRequest>,
) -> Result<Envelope<PausesView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new(state.change(PauseQueue { group }).await?.into()))
}

/// Go on
#[utoipa::path(
    post, path = "/queue/resume", operation_id = "resumeQueue", tag = "queue",
    request_body = Option<QueueRequest>,
    responses((status = 200, description = "What is paused now.", body = Envelope<PausesView>)),
    extensions(("x-request" = json!("Resume"))),
)]
pub async fn resume(
    State(state): State<AppState>,
    uri: Uri,
    SentOrDefault(QueueRequest { group }): SentOrDefault<QueueRequest>,
) -> Result<Envelope<PausesView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new(state.change(ResumeQueue { group }).await?.into()))
}

/// How the engine is to stop.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StopRequest {
    /// How. `drain` where it is left out.
    #[schema(value_type = words::StopMode)]
    mode: StopMode,
}

/// The engine is about to stop.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stopping)]
pub struct StoppingView {
    /// How many attempts are under way.
    running: u64,
}

/// Stop the engine
///
/// From the answer on nothing new is taken.
#[utoipa::path(
    post, path = "/engine/stop", operation_id = "stopEngine", tag = "engine",
    request_body = Option<StopRequest>,
    responses((status = 202, description = "It is about to stop.", body = Envelope<StoppingView>)),
    extensions(("x-request" = json!("Stop"))),
)]
pub async fn stop(
    State(state): State<AppState>,
    uri: Uri,
    SentOrDefault(StopRequest { mode }): SentOrDefault<StopRequest>,
) -> Result<(StatusCode, Envelope<StoppingView>), ApiError> {
    Parameters::of(&uri).finish()?;
    let Stopping { running } = state.change(StopEngine { mode }).await?;
    Ok((StatusCode::ACCEPTED, Envelope::new(StoppingView { running })))
}
