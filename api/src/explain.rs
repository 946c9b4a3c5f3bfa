//! Why a task is where it is, as REST shows it.

use chrono::{DateTime, Utc};
use orchestrator_protocol::request::{Explanation, Reason, ReasonKind};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::words;

/// Why a task is where it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub struct ExplanationView {
    #[schema(value_type = words::TaskId)]
    id: TaskId,
    name: String,
    #[schema(value_type = words::TaskStatus)]
    status: TaskStatus,
    /// Everything that keeps it from running, or how it ended.
    reasons: Vec<ReasonView>,
}

/// One thing that keeps a task from running, or how it ended.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Reason)]
pub struct ReasonView {
    #[schema(value_type = words::ReasonKind)]
    kind: ReasonKind,
    /// In a sentence.
    message: String,
    /// The task it is about: a dependency, the holder of a lock.
    #[schema(value_type = Option<words::TaskId>)]
    task: Option<TaskId>,
    /// When it ends by itself.
    until: Option<DateTime<Utc>>,
}

impl From<Reason> for ReasonView {
    fn from(Reason { kind, message, task, until }: Reason) -> Self {
        Self { kind, message, task, until }
    }
}

impl From<Explanation> for ExplanationView {
    fn from(Explanation { id, name, status, reasons }: Explanation) -> Self {
        Self { id, name, status, reasons: reasons.into_iter().map(ReasonView::from).collect() }
    }
}
