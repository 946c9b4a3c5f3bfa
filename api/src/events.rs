//! `GET /events`: every change of every task, as it happens.
//!
//! The stream begins with `listening`: everything after its id follows. Where events were missed it says
//! `reset` instead, or in between: list again; everything after its id follows. A client that remembers
//! the last id and sends it as `Last-Event-ID` (as `EventSource` does by itself) or as `since` misses
//! nothing, or is told that it has.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::response::sse::Event;
use chrono::{DateTime, Utc};
use futures::stream;
use orchestrator_protocol::event::{EventCursor, Item, TaskEvent};
use orchestrator_protocol::request::{EventsRequest, Subscription};
use orchestrator_protocol::task::{TaskId, TaskStatus};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::envelope::ApiError;
use crate::query::{Parameters, parsed, several, text};
use crate::state::{Answers, AppState, Place};
use crate::view::{ProgressView, Steps};
use crate::{sse, words};

/// The header with the id of the last event that a client has seen.
const LAST_EVENT_ID: &str = "last-event-id";

/// A change of a task: the data of an event `task`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskEvent)]
pub struct EventView {
    /// Its place among all events, `epoch:sequence`; the event's id too.
    cursor: String,
    /// When it happened.
    time: DateTime<Utc>,
    #[schema(value_type = words::TaskId)]
    id: TaskId,
    name: String,
    group: String,
    /// The workflow it belongs to.
    #[schema(value_type = Option<words::TaskId>)]
    parent: Option<TaskId>,
    /// Its state after the change.
    #[schema(value_type = words::TaskStatus)]
    status: TaskStatus,
    /// How many attempts were begun.
    attempt: u32,
    /// From 0 to 1.
    progress: Option<f64>,
    /// What it is doing.
    progress_message: Option<String>,
    /// Where its work is counted in steps.
    steps: Option<Steps>,
    /// Why it failed, was cancelled or waits for another attempt.
    error: Option<String>,
}

impl From<TaskEvent> for EventView {
    fn from(event: TaskEvent) -> Self {
        let TaskEvent { cursor, time, id, name, group, parent, status, attempt, progress, error } = event;
        let ProgressView { fraction, message, steps } = progress.into();
        Self {
            cursor: cursor.to_string(),
            time,
            id,
            name,
            group,
            parent,
            status,
            attempt,
            progress: fraction,
            progress_message: message,
            steps,
            error,
        }
    }
}

/// Every change of every task, as it happens
///
/// Server-sent events: first `listening`, or `reset` when events were missed; then `task`, each with its
/// id and a TaskEvent as data; `reset` again when events were missed: list again. Never ends by itself;
/// `failure` says why it did.
#[utoipa::path(
    get, path = "/events", operation_id = "listenToEvents", tag = "events",
    params(
        ("group" = Option<String>, Query, description = "Only this group."),
        ("task" = inline(Option<words::TaskId>), Query,
            description = "Only this task, or the tasks of this workflow."),
        ("status" = Option<String>, Query,
            description = "Only changes into these states, in any case, with commas between them. May come several times."),
        ("since" = Option<String>, Query, description = "What came after the event with this id."),
        ("Last-Event-ID" = Option<String>, Header,
            description = "As since, and wins over it: what a client sends that connects again."),
    ),
    responses((status = 200, description = "Events, as they happen.", body = EventView,
        content_type = "text/event-stream")),
    extensions(("x-request" = json!("Events"))),
)]
pub async fn listen(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let request = request(&uri, &headers)?;
    let place = place.for_long(&state)?;
    let answers = state.open(Subscription::Events(request)).await.map_err(ApiError::in_query)?;
    let events = stream::unfold(Some((answers, place)), |open| async move {
        let (mut answers, place) = open?;
        let (event, goes_on) = next(&mut answers).await;
        Some((event, goes_on.then_some((answers, place))))
    });
    Ok(sse::answer(&state, events))
}

fn request(uri: &Uri, headers: &HeaderMap) -> Result<EventsRequest, ApiError> {
    let mut query = Parameters::of(uri);
    let group = query.one("group", text);
    let task = query.one("task", parsed::<TaskId>);
    let statuses = query.all("status", several).into_iter().flatten().collect();
    let since = query.one("since", parsed::<EventCursor>);
    query.finish()?;
    Ok(EventsRequest { group, task, statuses, since: last_event_id(headers)?.or(since) })
}

/// The last event that the client has seen, by the header; an empty one says that it has seen none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<EventCursor>, ApiError> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(LAST_EVENT_ID) {
            true => Err(ApiError::malformed("Last-Event-ID may come once only")),
            false => Ok(None),
        };
    };
    let id = value.to_str().map_err(|_| ApiError::malformed("Last-Event-ID is no text"))?;
    match id.is_empty() {
        true => Ok(None),
        false => {
            parsed(id).map(Some).map_err(|problem| ApiError::malformed(format!("Last-Event-ID: {problem}")))
        }
    }
}

/// The next event, and whether more may follow.
async fn next(answers: &mut Answers) -> (Result<Event, axum::Error>, bool) {
    loop {
        return match answers.next().await {
            Some(Ok(Item::Event(event))) => {
                let view = EventView::from(event);
                (sse::event("task", &view).map(|event| event.id(&view.cursor)), true)
            }
            Some(Ok(Item::Listening(cursor))) => (at("listening", &cursor), true),
            Some(Ok(Item::Reset(cursor))) => (at("reset", &cursor), true),
            Some(Ok(
                Item::Task(_) | Item::Line(_) | Item::Dropped { .. } | Item::Node(_) | Item::Unknown,
            )) => continue,
            Some(Err(error)) => (sse::failure(error), false),
            None => (sse::failure(ApiError::unavailable("the engine tells no more")), false),
        };
    }
}

/// An event that says from where on everything follows.
fn at(name: &str, cursor: &EventCursor) -> Result<Event, axum::Error> {
    let cursor = cursor.to_string();
    sse::event(name, &json!({ "cursor": cursor })).map(|event| event.id(cursor))
}
