//! `GET /tasks` and `GET /tasks/{id}`.

use std::collections::BTreeMap;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use chrono::{DateTime, Utc};
use orchestrator_protocol::request::{GetTask, ListTasks};
use orchestrator_protocol::task::{TaskId, TaskKind, TaskStatus};

use crate::AppState;
use crate::envelope::{ApiError, Envelope};
use crate::query::{Parameters, parsed, text};
use crate::view::TaskView;

/// The longest page, as the protocol has it.
const MAX_PAGE: usize = 1_000;

/// One task.
pub async fn get(
    State(state): State<AppState>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Envelope<TaskView>, ApiError> {
    Parameters::of(&uri).finish()?;
    let Path(id) = id.map_err(|_| ApiError::malformed("the path is no UTF-8"))?;
    let id = parsed(&id).map_err(ApiError::malformed)?;
    let task = state.ask(GetTask { id }).await?;
    Ok(Envelope::new((*task).into()))
}

/// A page of tasks, newest first.
pub async fn list(State(state): State<AppState>, uri: Uri) -> Result<Envelope<Vec<TaskView>>, ApiError> {
    let page = state.ask(request(&uri)?).await.map_err(ApiError::in_query)?;
    Ok(Envelope::page(page.tasks.into_iter().map(TaskView::from).collect(), page.cursor))
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
    let statuses = query.all("status", statuses).into_iter().flatten().collect();
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

fn statuses(value: &str) -> Result<Vec<TaskStatus>, String> {
    value.split(',').map(|name| parsed(name.trim())).collect()
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
