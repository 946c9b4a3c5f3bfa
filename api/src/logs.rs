//! `GET /tasks/{id}/logs`: what a task printed, and what it prints.
//!
//! Without `follow` the answer is bounded: the last 1 000 lines of each task, or as many as `tail` says,
//! and at most 8 MiB in all; what is left out for the second reason is said in the first entry. With
//! `follow` it is a stream, from the first line (or the last `tail` ones) to the end of the task. With
//! `Accept: text/plain` both are bare lines; a stream of those that is not told to its end breaks off, so
//! that it is never taken for all.

use std::collections::VecDeque;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use futures::stream::{self, Stream};
use orchestrator_protocol::event::{Item, LogLine, OutputStream};
use orchestrator_protocol::request::{GetTask, LogsRequest, Subscription};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::envelope::{ApiError, Envelope};
use crate::query::{Parameters, flag};
use crate::state::{Answers, AppState, LongPlace, Place};
use crate::tasks::Named;
use crate::{sse, words};

/// How many lines an answer that is no stream has, unless asked otherwise, and at most.
const DEFAULT_TAIL: u64 = 1_000;
const MAX_TAIL: u64 = 10_000;
/// What an entry takes beside its text, about.
const ENTRY_BYTES: usize = 160;
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

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

/// How much is missing.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
#[schema(as = MissingOutput)]
pub struct Missing {
    lines: u64,
    bytes: u64,
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

impl LogEntry {
    /// What an item of the protocol's stream is here; `None` of one that is no output.
    fn of(item: Item) -> Option<Self> {
        match item {
            Item::Line(line) => Some(Self::Line(line.into())),
            Item::Dropped { task, lines, bytes } => {
                Some(Self::Dropped(DroppedView { task, dropped: Missing { lines, bytes } }))
            }
            Item::Task(_) | Item::Event(_) | Item::Listening(_) | Item::Reset(_) | Item::Unknown => None,
        }
    }

    fn task(&self) -> TaskId {
        match self {
            Self::Line(line) => line.task,
            Self::Dropped(dropped) => dropped.task,
        }
    }

    /// How much there is of it.
    fn extent(&self) -> Missing {
        match self {
            Self::Line(line) => Missing { lines: 1, bytes: line.line.len() as u64 + 1 },
            Self::Dropped(dropped) => dropped.dropped,
        }
    }

    /// What it takes in an answer, in bytes.
    fn weight(&self) -> usize {
        match self {
            Self::Line(line) => ENTRY_BYTES + line.line.len(),
            Self::Dropped(_) => ENTRY_BYTES,
        }
    }

    /// It as a bare line.
    fn bare(&self) -> String {
        match self {
            Self::Line(line) => format!("{}\n", line.line),
            Self::Dropped(DroppedView { dropped: Missing { lines, bytes }, .. }) => {
                format!("[{lines} lines ({bytes} bytes) are missing here]\n")
            }
        }
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
        ("tail" = Option<u64>, Query, minimum = 1,
            description = "Only the last so many lines of each task. Without follow at most 10000, and 1000 unless said."),
        ("stream" = inline(Option<words::OutputStream>), Query, description = "Only one of the two outputs."),
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
    let is_plain = wants_plain(&headers);
    if !request.follow {
        let entries = collected(&state, request).await?;
        return Ok(match is_plain {
            true => plain(Body::from(entries.iter().map(LogEntry::bare).collect::<String>())),
            false => Envelope::new(entries).into_response(),
        });
    }
    let place = place.for_long(&state)?;
    let answers = state.open(Subscription::Logs(request)).await.map_err(ApiError::in_query)?;
    let output = Output { answers, _place: place };
    Ok(match is_plain {
        true => plain(Body::from_stream(lines(output))),
        false => sse::answer(&state, events(state.clone(), id, output)),
    })
}

fn request(id: TaskId, uri: &Uri) -> Result<LogsRequest, ApiError> {
    let mut query = Parameters::of(uri);
    let attempt = query.one("attempt", |value| positive(value, u64::from(u32::MAX)));
    let tail = query.one("tail", |value| positive(value, u64::MAX));
    let stream = query.one("stream", |value| match value {
        "stdout" => Ok(OutputStream::Stdout),
        "stderr" => Ok(OutputStream::Stderr),
        other => Err(format!("'{other}' is neither stdout nor stderr")),
    });
    let follow = query.one("follow", flag).unwrap_or(false);
    if !follow && tail.is_some_and(|tail| tail > MAX_TAIL) {
        query.refuse("tail", format!("it is at most {MAX_TAIL}; with follow=true all lines can be had"));
    }
    query.finish()?;
    Ok(LogsRequest {
        id,
        attempt: attempt.and_then(|number| u32::try_from(number).ok()),
        tail: if follow { tail } else { tail.or(Some(DEFAULT_TAIL)) },
        follow,
        stream,
    })
}

fn positive(value: &str, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("'{value}' is not a number from 1")),
    }
}

/// Whether bare lines are asked for: `text/plain` is accepted, and what else there would be is not
/// preferred to it (RFC 9110, 12.5.1). Of what is equally welcome the first one wins.
fn wants_plain(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let offered = accepted.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_plain = match parts.next()?.to_ascii_lowercase().as_str() {
            "text/plain" => true,
            "application/json" | "application/*" | "text/event-stream" | "*/*" => false,
            _ => return None,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let quality: f32 = quality.map_or(Some(1.0), |quality| quality.parse().ok())?;
        (quality > 0.0).then_some((is_plain, quality))
    });
    let best = offered.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.is_some_and(|(is_plain, _)| is_plain)
}

fn plain(body: Body) -> Response {
    ([(header::CONTENT_TYPE, PLAIN)], body).into_response()
}

/// All that is there now, within the bound of an answer; what is too much is dropped from its beginning.
async fn collected(state: &AppState, request: LogsRequest) -> Result<Vec<LogEntry>, ApiError> {
    let collect = async {
        let mut answers = state.open(Subscription::Logs(request)).await.map_err(ApiError::in_query)?;
        let mut kept = Kept { most: state.limits().output_bytes, ..Kept::default() };
        while let Some(item) = answers.next().await {
            kept.extend(LogEntry::of(item?));
        }
        Ok(kept.entries())
    };
    match tokio::time::timeout(state.limits().answer, collect).await {
        Ok(entries) => entries,
        Err(_) => Err(ApiError::unavailable("the engine took too long to read the output")),
    }
}

/// The newest entries, up to a number of bytes.
#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<LogEntry>,
    weight: usize,
    most: usize,
    /// What was dropped, and of which task the last of it was.
    dropped: Option<DroppedView>,
}

impl Kept {
    fn extend(&mut self, entry: Option<LogEntry>) {
        let Some(entry) = entry else { return };
        self.weight += entry.weight();
        self.entries.push_back(entry);
        while self.weight > self.most
            && let Some(oldest) = self.entries.pop_front()
        {
            self.weight -= oldest.weight();
            let before = self.dropped.as_ref().map(|dropped| dropped.dropped).unwrap_or_default();
            let Missing { lines, bytes } = oldest.extent();
            let dropped = Missing { lines: before.lines + lines, bytes: before.bytes + bytes };
            self.dropped = Some(DroppedView { task: oldest.task(), dropped });
        }
    }

    fn entries(self) -> Vec<LogEntry> {
        self.dropped.map(LogEntry::Dropped).into_iter().chain(self.entries).collect()
    }
}

/// The output of a task that is followed, and the place of whoever follows it.
struct Output {
    answers: Answers,
    _place: LongPlace,
}

/// Bare lines. It ends with an error, which breaks the answer off, where it is not told to its end.
fn lines(output: Output) -> impl Stream<Item = Result<Bytes, orchestrator_protocol::Error>> {
    stream::unfold(Some(output), |output| async move {
        let mut output = output?;
        loop {
            match output.answers.next().await? {
                Ok(item) => {
                    if let Some(entry) = LogEntry::of(item) {
                        return Some((Ok(Bytes::from(entry.bare())), Some(output)));
                    }
                }
                Err(error) => return Some((Err(error), None)),
            }
        }
    })
}

/// Entries as events, and how the task ended as the last one.
fn events(state: AppState, id: TaskId, output: Output) -> impl Stream<Item = Result<Event, axum::Error>> {
    stream::unfold(Some((state, output)), move |open| async move {
        let (state, mut output) = open?;
        loop {
            return match output.answers.next().await {
                Some(Ok(item)) => match LogEntry::of(item) {
                    Some(entry @ LogEntry::Line(_)) => {
                        Some((sse::event("line", &entry), Some((state, output))))
                    }
                    Some(entry) => Some((sse::event("dropped", &entry), Some((state, output)))),
                    None => continue,
                },
                Some(Err(error)) => Some((sse::failure(error), None)),
                None => Some((end(&state, id).await, None)),
            };
        }
    })
}

async fn end(state: &AppState, id: TaskId) -> Result<Event, axum::Error> {
    match state.ask(GetTask { id }).await {
        Ok(task) => sse::event("end", &LogEnd { task: id, status: task.status, error: task.error }),
        Err(error) => sse::failure(error),
    }
}
