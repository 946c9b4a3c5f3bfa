//! `GET /tasks` and `GET /tasks/{id}`.

use axum::extract::{Path, RawQuery, State};
use chrono::{DateTime, Utc};
use orchestrator_protocol::request::{GetTask, ListTasks};
use orchestrator_protocol::task::TaskKind;

use crate::AppState;
use crate::envelope::{ApiError, Envelope};
use crate::view::TaskView;

/// One task.
pub async fn get(State(state): State<AppState>, Path(id): Path<String>) -> Result<Envelope<TaskView>, ApiError> {
    let id = id.parse().map_err(|error| ApiError::malformed(format!("{error}")))?;
    let task = state.ask(GetTask { id }).await?;
    Ok(Envelope::new((*task).into()))
}

/// A page of tasks, newest first.
pub async fn list(State(state): State<AppState>, RawQuery(query): RawQuery) -> Result<Envelope<Vec<TaskView>>, ApiError> {
    let page = state.ask(request(query.as_deref().unwrap_or_default())?).await?;
    Ok(Envelope::page(page.tasks.into_iter().map(TaskView::from).collect(), page.cursor))
}

/// The question that a query string asks. `status` and `label` may come several times.
fn request(query: &str) -> Result<ListTasks, ApiError> {
    let mut request = ListTasks::default();
    let mut has_offset = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "status" => {
                for status in value.split(',') {
                    request.statuses.push(status.parse().map_err(|error| ApiError::malformed(format!("{error}")))?);
                }
            }
            "group" => request.group = Some(value.into_owned()),
            "kind" => request.kind = Some(kind(&value)?),
            "parent" => request.parent = Some(value.parse().map_err(|error| ApiError::malformed(format!("parent: {error}")))?),
            "label" => {
                let (label, value) = value
                    .split_once('=')
                    .ok_or_else(|| ApiError::malformed(format!("the label '{value}' is not NAME=VALUE")))?;
                request.labels.insert(label.to_owned(), value.to_owned());
            }
            "since" => request.since = Some(time("since", &value)?),
            "until" => request.until = Some(time("until", &value)?),
            "text" => request.text = Some(value.into_owned()),
            "limit" => request.limit = Some(number("limit", &value)?),
            "offset" => {
                has_offset = true;
                request.offset = number("offset", &value)?;
            }
            "cursor" => request.cursor = Some(value.into_owned()),
            other => {
                return Err(ApiError::malformed(format!(
                    "there is no parameter '{other}': use status, group, kind, parent, label, since, until, text, limit, offset or cursor"
                )));
            }
        }
    }
    if has_offset && request.cursor.is_some() {
        return Err(ApiError::malformed("offset and cursor exclude each other"));
    }
    Ok(request)
}

fn kind(value: &str) -> Result<TaskKind, ApiError> {
    [TaskKind::Command, TaskKind::Action, TaskKind::Workflow]
        .into_iter()
        .find(|kind| kind.as_str() == value)
        .ok_or_else(|| ApiError::malformed(format!("'{value}' is not a kind: use command, action or workflow")))
}

fn time(name: &str, value: &str) -> Result<DateTime<Utc>, ApiError> {
    DateTime::parse_from_rfc3339(value)
        .map(|time| time.to_utc())
        .map_err(|_| ApiError::malformed(format!("{name}: '{value}' is not a time such as 2026-01-31T12:00:00Z")))
}

fn number(name: &str, value: &str) -> Result<usize, ApiError> {
    value.parse().map_err(|_| ApiError::malformed(format!("{name}: '{value}' is not a number")))
}
