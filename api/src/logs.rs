//! `GET /tasks/{id}/logs`: what a task printed, and what it prints, as [`output`] has it. `tail` counts the
//! lines of each task; a stream goes on to the end of the task.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::response::sse::Event;
use chrono::{DateTime, Utc};
use orchestrator_protocol::event::{Item, LogLine, OutputStream};
use orchestrator_protocol::request::{GetTask, LogsRequest, Subscription};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::envelope::{ApiError, Envelope};
use crate::output::{self, Entry, Missing, Wanted, no_prefix, positive};
use crate::query::Parameters;
use crate::state::{AppState, Place};
use crate::tasks::Named;
use crate::{sse, words};

/// An entry of the output.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LogEntry {
    /// A line.
    Line(LineView),
    /// Lines that are missing here.
    Dropped(DroppedView),
}

/// One line of output.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LogLine)]
pub struct LineView {
    #[schema(value_type = words::TaskId)]
    task: TaskId,
    /// The attempt, by its number.
    attempt: u32,
    /// When the line was read.
    time: DateTime<Utc>,
    /// Where it was written.
    #[schema(value_type = words::OutputStream)]
    stream: OutputStream,
    /// The line, without its end.
    line: String,
}

/// A part of the output that is not there: it was longer than its bound, or than that of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LogDropped)]
pub struct DroppedView {
    #[schema(value_type = words::TaskId)]
    task: TaskId,
    dropped: Missing,
}

/// How the stream of a task's output ended: the data of its last event, `end`.
#[derive(Debug, Serialize, ToSchema)]
pub struct LogEnd {
    #[schema(value_type = words::TaskId)]
    task: TaskId,
    #[schema(value_type = words::TaskStatus)]
    status: TaskStatus,
    /// Why it failed or was cancelled, once it has.
    error: Option<String>,
}

impl From<LogLine> for LineView {
    fn from(LogLine { task, attempt, time, stream, line }: LogLine) -> Self {
        Self { task, attempt, time, stream, line }
    }
}

impl Entry for LogEntry {
    fn of(item: Item) -> Option<Self> {
        match item {
            Item::Line(line) => Some(Self::Line(line.into())),
            Item::Dropped { task, lines, bytes } => {
                Some(Self::Dropped(DroppedView { task, dropped: Missing { lines, bytes } }))
            }
            Item::Task(_)
            | Item::Event(_)
            | Item::Listening(_)
            | Item::Reset(_)
            | Item::Node(_)
            | Item::Unknown => None,
        }
    }

    fn content(&self) -> Result<&str, Missing> {
        match self {
            Self::Line(line) => Ok(&line.line),
            Self::Dropped(dropped) => Err(dropped.dropped),
        }
    }

    fn in_place_of(dropped: Missing, last: &Self) -> Self {
        let (Self::Line(LineView { task, .. }) | Self::Dropped(DroppedView { task, .. })) = *last;
        Self::Dropped(DroppedView { task, dropped })
    }
}

/// What a task printed
///
/// Of a workflow: its tasks, one after the other. Without `follow` a list. With `follow` server-sent
/// events, `line` and `dropped` (data: an entry of that list) until the task has ended, then `end` (data:
/// LogEnd); `failure` where the engine stops before. With `Accept: text/plain` bare lines in both cases.
#[utoipa::path(
    get, path = "/tasks/{id}/logs", operation_id = "getTaskLogs", tag = "tasks",
    params(
        ("id" = inline(words::TaskId), Path, description = "The task, or the workflow."),
        ("attempt" = Option<u32>, Query, description = "The attempt, by its number; the newest without one."),
        ("stream" = inline(Option<words::OutputStream>), Query, description = "Only one of the two outputs."),
        ("tail" = Option<u64>, Query, minimum = 1,
            description = "Only the last so many lines of each task. Without follow at most 10000, and 1000 unless said."),
        ("follow" = Option<bool>, Query,
            description = "A stream that goes on until the task has ended, over further attempts."),
    ),
    responses((status = 200, description = "The output, oldest first.", content(
        (Envelope<Vec<LogEntry>> = "application/json"),
        (LogEntry = "text/event-stream"),
        (String = "text/plain"),
    ))),
    extensions(("x-request" = json!("Logs"))),
)]
pub async fn logs(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    Named(id): Named,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let request = request(id, &uri)?;
    let follow = request.follow;
    let subscription = Subscription::Logs(request);
    match follow {
        true => {
            let end = end(state.clone(), id);
            output::follow::<LogEntry>(&state, &headers, place, subscription, no_prefix, end).await
        }
        false => output::list::<LogEntry>(&state, &headers, subscription, no_prefix).await,
    }
}

fn request(id: TaskId, uri: &Uri) -> Result<LogsRequest, ApiError> {
    let mut query = Parameters::of(uri);
    let attempt = query.one("attempt", |value| positive(value, u64::from(u32::MAX)));
    let stream = query.one("stream", |value| match value {
        "stdout" => Ok(OutputStream::Stdout),
        "stderr" => Ok(OutputStream::Stderr),
        other => Err(format!("'{other}' is neither stdout nor stderr")),
    });
    let Wanted { tail, follow } = Wanted::of(&mut query);
    query.finish()?;
    let attempt = attempt.and_then(|number| u32::try_from(number).ok());
    Ok(LogsRequest { id, attempt, tail, follow, stream })
}

async fn end(state: AppState, id: TaskId) -> Result<Event, axum::Error> {
    match state.ask(GetTask { id }).await {
        Ok(task) => sse::event("end", &LogEnd { task: id, status: task.status, error: task.error }),
        Err(error) => sse::failure(error),
    }
}
