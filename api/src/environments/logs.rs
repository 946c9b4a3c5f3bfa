//! `GET /test/environments/{id}/logs`: what the nodes of an environment printed, and what they print, as
//! [`output`] has it. `tail` counts the lines of each node; a stream goes on while something runs in the
//! environment. Of bare lines each begins with the name of its node, unless only one is asked for.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::response::sse::Event;
use chrono::{DateTime, Utc};
use orchestrator_protocol::environment::{
    EnvironmentId, EnvironmentLogs, EnvironmentStatus, GetEnvironment, NodeLine,
};
use orchestrator_protocol::event::{Item, OutputStream};
use orchestrator_protocol::request::Subscription;
use serde::Serialize;
use utoipa::ToSchema;

use super::Named;
use crate::envelope::{ApiError, Envelope};
use crate::output::{self, Entry, Missing, Prefix, Wanted, no_prefix};
use crate::query::{Parameters, text};
use crate::state::{AppState, Place};
use crate::{sse, words};

/// An entry of the output of nodes.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum NodeEntry {
    /// A line.
    Line(NodeLineView),
    /// Lines that are missing here.
    Dropped(NodeDroppedView),
}

/// A line that a script on a node, or the node itself, has printed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = NodeLine)]
pub struct NodeLineView {
    node: String,
    /// What printed it, such as `start postgres`; `container` is the node itself.
    step: String,
    /// When it was read.
    time: DateTime<Utc>,
    /// Where it was written.
    #[schema(value_type = words::OutputStream)]
    stream: OutputStream,
    /// The line, without its end.
    line: String,
}

/// A part of the output that is not there: it was longer than its bound, or than that of an answer.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = NodeDropped)]
pub struct NodeDroppedView {
    dropped: Missing,
}

/// How the stream of an environment's output ended: the data of its last event, `end`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnvironmentLogEnd)]
pub struct LogEnd {
    #[schema(value_type = words::EnvironmentId)]
    environment: EnvironmentId,
    #[schema(value_type = words::EnvironmentStatus)]
    status: EnvironmentStatus,
    /// Why it is in error, or what its run failed on.
    error: Option<String>,
}

impl Entry for NodeEntry {
    fn of(item: Item) -> Option<Self> {
        match item {
            Item::Node(NodeLine { node, step, time, stream, line }) => {
                Some(Self::Line(NodeLineView { node, step, time, stream, line }))
            }
            Item::Dropped { task: _, lines, bytes } => Some(missing(Missing { lines, bytes })),
            Item::Task(_)
            | Item::Event(_)
            | Item::Line(_)
            | Item::Listening(_)
            | Item::Reset(_)
            | Item::Unknown => None,
        }
    }

    fn content(&self) -> Result<&str, Missing> {
        match self {
            Self::Line(line) => Ok(&line.line),
            Self::Dropped(NodeDroppedView { dropped }) => Err(*dropped),
        }
    }

    fn in_place_of(dropped: Missing, _last: &Self) -> Self {
        missing(dropped)
    }
}

fn missing(dropped: Missing) -> NodeEntry {
    NodeEntry::Dropped(NodeDroppedView { dropped })
}

/// The node of an entry.
fn node(entry: &NodeEntry) -> &str {
    match entry {
        NodeEntry::Line(line) => &line.node,
        NodeEntry::Dropped(_) => "",
    }
}

/// What the nodes of an environment printed
///
/// The output of install, start, verify and test scripts, and of the nodes themselves. Without `follow` a
/// list. With `follow` server-sent events, `line` and `dropped` (data: an entry of that list) while
/// something runs in the environment, then `end` (data: EnvironmentLogEnd); `failure` where the engine
/// stops before. With `Accept: text/plain` bare lines in both cases, each after the name of its node
/// unless `node` is given.
#[utoipa::path(
    get, path = "/test/environments/{id}/logs", operation_id = "getTestEnvironmentLogs", tag = "test",
    params(
        ("id" = inline(words::EnvironmentId), Path, description = "The environment."),
        ("node" = Option<String>, Query, description = "Only this node."),
        ("tail" = Option<u64>, Query, minimum = 1,
            description = "Only the last so many lines of each node. Without follow at most 10000, and 1000 unless said."),
        ("follow" = Option<bool>, Query,
            description = "A stream that goes on while something runs in the environment."),
    ),
    responses((status = 200, description = "The output, oldest first.", content(
        (Envelope<Vec<NodeEntry>> = "application/json"),
        (NodeEntry = "text/event-stream"),
        (String = "text/plain"),
    ))),
    extensions(("x-request" = json!("EnvironmentLogs"))),
)]
pub async fn logs(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    Named(id): Named,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    let request = request(id, &uri)?;
    let prefix: Prefix<NodeEntry> = if request.node.is_some() { no_prefix } else { node };
    let follow = request.follow;
    let subscription = Subscription::EnvironmentLogs(request);
    match follow {
        true => {
            let end = end(state.clone(), id);
            output::follow(&state, &headers, place, subscription, prefix, end).await
        }
        false => output::list(&state, &headers, subscription, prefix).await,
    }
}

fn request(id: EnvironmentId, uri: &Uri) -> Result<EnvironmentLogs, ApiError> {
    let mut query = Parameters::of(uri);
    let node = query.one("node", text);
    let Wanted { tail, follow } = Wanted::of(&mut query);
    query.finish()?;
    Ok(EnvironmentLogs { id, node, tail, follow })
}

async fn end(state: AppState, id: EnvironmentId) -> Result<Event, axum::Error> {
    match state.ask(GetEnvironment { id }).await {
        Ok(found) => {
            let end = LogEnd { environment: id, status: found.status, error: found.error };
            sse::event("end", &end)
        }
        Err(error) => sse::failure(error),
    }
}
