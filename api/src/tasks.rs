//! Tasks: a page of them, one of them, and what can be done with it.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::Uri;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use orchestrator_protocol::request::{CancelTask, ExplainTask, GetTask, ListTasks, RetryTask};
use orchestrator_protocol::task::{TaskId, TaskKind};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::SentOrDefault;
use crate::engine::Nothing;
use crate::envelope::{ApiError, Envelope, Page};
use crate::explain::ExplanationView;
use crate::query::{Parameters, flag, in_path, parsed, several, text};
use crate::state::{AppState, Place};
use crate::view::{ChangedView, TaskView};
use crate::{wait, words};

/// The longest page, as the protocol has it.
const MAX_PAGE: usize = 1_000;

/// The task that a path names.
#[derive(Debug, Clone, Copy)]
pub struct Named(pub TaskId);

impl FromRequestParts<AppState> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        in_path(parts, state).await.map(Self)
    }
}

/// One task
///
/// With `wait=true` it is answered when the task has ended, whenever that is. A client that goes away
/// cancels nothing. An engine that stops before answers 503.
#[utoipa::path(
    get, path = "/tasks/{id}", operation_id = "getTask", tag = "tasks",
    params(
        ("id" = inline(words::TaskId), Path, description = "The task, or the workflow."),
        ("wait" = Option<bool>, Query, description = "Answer when it has ended."),
    ),
    responses((status = 200, description = "The task.", body = Envelope<TaskView>)),
    extensions(("x-request" = json!("GetTask")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn get(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    Named(id): Named,
    uri: Uri,
) -> Result<Envelope<TaskView>, ApiError> {
    let mut query = Parameters::of(&uri);
    let waits = query.one("wait", flag).unwrap_or(false);
    query.finish()?;
    let task = match waits {
        true => wait::for_one(&state, &place.for_long(&state)?, id).await?,
        false => *state.ask(GetTask { id }).await?,
    };
    Ok(Envelope::new(task.into()))
}

/// A page of tasks, newest first
#[utoipa::path(
    get, path = "/tasks", operation_id = "listTasks", tag = "tasks",
    params(
        ("status" = Option<String>, Query,
            description = "Only these states, in any case, with commas between them. May come several times."),
        ("group" = Option<String>, Query, description = "Only this group."),
        ("kind" = inline(Option<words::TaskKind>), Query, description = "Only this kind."),
        ("parent" = inline(Option<words::TaskId>), Query, description = "Only tasks of this workflow."),
        ("label" = Option<String>, Query,
            description = "NAME=VALUE: only tasks with this label. May come several times; all must be there."),
        ("since" = Option<DateTime<Utc>>, Query, description = "Created at or after this time."),
        ("until" = Option<DateTime<Utc>>, Query, description = "Created before this time."),
        ("text" = Option<String>, Query,
            description = "Only tasks with this text in the name, the command or the error, in any case."),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000,
            description = "How many at most. Default 100."),
        ("offset" = Option<u64>, Query, minimum = 0, description = "Skip so many. Excludes cursor."),
        ("cursor" = Option<String>, Query, description = "Go on where the page before ended."),
    ),
    responses((status = 200, description = "A page, and where the next one starts.", body = Page<TaskView>)),
    extensions(("x-request" = json!("ListTasks"))),
)]
pub async fn list(State(state): State<AppState>, uri: Uri) -> Result<Page<TaskView>, ApiError> {
    let page = state.ask(request(&uri)?).await.map_err(ApiError::in_query)?;
    Ok(Page::new(page.tasks.into_iter().map(TaskView::from).collect(), page.cursor))
}

/// Why a task is where it is
#[utoipa::path(
    get, path = "/tasks/{id}/explain", operation_id = "explainTask", tag = "tasks",
    params(("id" = inline(words::TaskId), Path, description = "The task, or the workflow.")),
    responses((status = 200, description = "Everything that keeps it from running, or how it ended.",
        body = Envelope<ExplanationView>)),
    extensions(("x-request" = json!("Explain"))),
)]
pub async fn explain(
    State(state): State<AppState>,
    Named(id): Named,
    uri: Uri,
) -> Result<Envelope<ExplanationView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new(state.ask(ExplainTask { id }).await?.into()))
}

/// Why a task is called off.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CancelRequest {
    /// Kept with the task.
    reason: Option<String>,
    /// Whether to end it also when it is held for an engine that is lost.
    force: bool,
}

/// Call a task off
///
/// A workflow's tasks go with it. What runs is asked to end, and made to end after its grace: the answer
/// does not wait for that.
#[utoipa::path(
    post, path = "/tasks/{id}/cancel", operation_id = "cancelTask", tag = "tasks",
    params(("id" = inline(words::TaskId), Path, description = "The task, or the workflow.")),
    request_body = Option<CancelRequest>,
    responses((status = 200, description = "What has changed.", body = Envelope<ChangedView>)),
    extensions(("x-request" = json!("Cancel"))),
)]
pub async fn cancel(
    State(state): State<AppState>,
    Named(id): Named,
    uri: Uri,
    SentOrDefault(CancelRequest { reason, force }): SentOrDefault<CancelRequest>,
) -> Result<Envelope<ChangedView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new(state.change(CancelTask { id, reason, force }).await?.into()))
}

/// Try a failed or cancelled task again
///
/// What its end had cancelled is revived. Of a workflow: its failed and cancelled tasks.
#[utoipa::path(
    post, path = "/tasks/{id}/retry", operation_id = "retryTask", tag = "tasks",
    params(("id" = inline(words::TaskId), Path, description = "The task, or the workflow.")),
    request_body = Option<Nothing>,
    responses((status = 200, description = "What has changed.", body = Envelope<ChangedView>)),
    extensions(("x-request" = json!("Retry"))),
)]
pub async fn retry(
    State(state): State<AppState>,
    Named(id): Named,
    uri: Uri,
    SentOrDefault(Nothing {}): SentOrDefault<Nothing>,
) -> Result<Envelope<ChangedView>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Envelope::new(state.change(RetryTask { id }).await?.into()))
}

/// The question that a query asks:
///
/// - `status`: in any case, several with commas or one after the other.
/// - `group`; `kind`: `command`, `action` or `workflow`; `parent`: a workflow's id.
/// - `label`: `NAME=VALUE`; of several, all must be there.
/// - `since`, `until`: created at or after a time, and before one (RFC 3339).
/// - `text`: in the name, the command or the error, in any case.
/// - `limit`: 1 to 1 000; `offset`, or `cursor` as the page before gave it.
fn request(uri: &Uri) -> Result<ListTasks, ApiError> {
    let mut query = Parameters::of(uri);
    let statuses = query.all("status", several).into_iter().flatten().collect();
    let group = query.one("group", text);
    let kind = query.one("kind", kind);
    let parent = query.one("parent", parsed::<TaskId>);
    let mut labels = BTreeMap::new();
    for (name, value) in query.all("label", label) {
        if labels.get(&name).is_some_and(|other| *other != value) {
            query.refuse("label", format!("no task has two values of '{name}'"));
        }
        labels.insert(name, value);
    }
    let since = query.one("since", time);
    let until = query.one("until", time);
    let contained = query.one("text", text);
    let limit = query.one("limit", limit);
    let offset = query.one("offset", offset);
    let cursor = query.one("cursor", text);
    if offset.is_some() && cursor.is_some() {
        query.refuse("offset", "it excludes cursor");
    }
    query.finish()?;
    let offset = offset.unwrap_or(0);
    Ok(ListTasks {
        statuses,
        group,
        kind,
        parent,
        labels,
        since,
        until,
        text: contained,
        offset,
        limit,
        cursor,
    })
}

fn kind(value: &str) -> Result<TaskKind, String> {
    [TaskKind::Command, TaskKind::Action, TaskKind::Workflow]
        .into_iter()
        .find(|kind| kind.as_str().eq_ignore_ascii_case(value))
        .ok_or_else(|| format!("'{value}' is not a kind: use command, action or workflow"))
}

fn label(value: &str) -> Result<(String, String), String> {
    match value.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("'{value}' is not NAME=VALUE")),
    }
}

fn time(value: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(value).map(|time| time.to_utc()).map_err(|_| {
        // In a query a plus sign is a blank.
        format!("'{value}' is not a time such as 2026-01-31T12:00:00Z or 2026-01-31T12:00:00%2B02:00")
    })
}

fn limit(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(limit @ 1..=MAX_PAGE) => Ok(limit),
        _ => Err(format!("'{value}' is not a number from 1 to {MAX_PAGE}")),
    }
}

fn offset(value: &str) -> Result<usize, String> {
    value.parse().map_err(|_| format!("'{value}' is not a number of tasks"))
}
