//! Work that is handed in: graphs of scripts, and servers, taskservs and clusters of a settings file.
//!
//! The answer is 202 with the identifier of what was submitted as `data`, and the path to ask for it in
//! `Location`. With `"wait": true` it is 200 with the finished task, whatever its status. A submission is
//! made to its end, also when the client goes away in the middle of it; and when it goes away while it
//! waits, nothing is cancelled.
//!
//! The key that makes it safe to submit again comes in the body, as `idempotency_key`, or in the header
//! `Idempotency-Key`. What an earlier submission had made is answered with `Idempotent-Replayed: true`.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use orchestrator_protocol::provision::{Operation, Target};
use orchestrator_protocol::request::Call;
use orchestrator_protocol::submit::{Submitted, SubmittedTask};
use orchestrator_protocol::task::TaskId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::Sent;
use crate::envelope::{ApiError, Envelope};
use crate::query::Parameters;
use crate::state::{AppState, Place};
use crate::submission::{
    ClusterRequest, CreateServersRequest, DeleteServersRequest, GraphRequest, TaskservRequest,
};
use crate::view::TaskView;
use crate::{wait, words};

/// The header with a key that makes it safe to submit again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that says that an earlier submission with the same key had made it already.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What was submitted.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Accepted {
    /// The workflow, or the only task.
    #[schema(value_type = words::TaskId)]
    One(TaskId),
    /// Several tasks without a workflow.
    Several(AcceptedTasks),
}

/// Several tasks that were submitted without a workflow, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedTasks {
    tasks: Vec<AcceptedTask>,
}

/// One of several tasks that were submitted.
#[derive(Debug, Serialize, ToSchema)]
pub struct AcceptedTask {
    #[schema(value_type = words::TaskId)]
    id: TaskId,
    name: String,
}

/// What was submitted, once it has ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Finished {
    /// The workflow, or the only task.
    One(Box<TaskView>),
    /// Several tasks without a workflow.
    Several(FinishedTasks),
}

/// Several tasks that were submitted without a workflow, in the order of the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct FinishedTasks {
    tasks: Vec<TaskView>,
}

/// Submit a graph of scripts
///
/// All of them or none. With `workflow` they become the tasks of one workflow, and `data` is its
/// identifier. Without it they stay tasks of their own: `data` is the identifier of the only one, or
/// `{"tasks": [{"id", "name"}]}` of several. Relative paths start at `cwd`, else at the engine's own
/// working directory.
#[utoipa::path(
    post, path = "/workflows", operation_id = "submitWorkflow", tag = "workflows",
    params(("Idempotency-Key" = Option<String>, Header, description = "As idempotency_key in the body.")),
    request_body = GraphRequest,
    responses(
        (status = 202, description = "What was submitted.", body = Envelope<Accepted>),
        (status = 200, description = "With wait: how it ended.", body = Envelope<Finished>),
    ),
    extensions(("x-request" = json!("Submit")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn submit(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    uri: Uri,
    Sent(mut graph): Sent<GraphRequest>,
) -> Result<Response, ApiError> {
    let waits = graph.wait;
    graph.idempotency_key = key(&uri, &headers, graph.idempotency_key.take())?;
    hand_in(&state, &place, graph.into_request(), waits).await
}

/// Create servers of a settings file
///
/// One task for each, in parallel, in one workflow. What exists already is left as it is. Relative paths
/// start at the engine's own working directory.
#[utoipa::path(
    post, path = "/workflows/servers/create", operation_id = "createServers", tag = "workflows",
    params(("Idempotency-Key" = Option<String>, Header, description = "As idempotency_key in the body.")),
    request_body = CreateServersRequest,
    responses(
        (status = 202, description = "The workflow.", body = Envelope<words::TaskId>),
        (status = 200, description = "With wait: how it ended.", body = Envelope<TaskView>),
    ),
    extensions(("x-request" = json!("Provision")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn create_servers(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    uri: Uri,
    Sent(mut body): Sent<CreateServersRequest>,
) -> Result<Response, ApiError> {
    let waits = body.wait;
    body.idempotency_key = key(&uri, &headers, body.idempotency_key.take())?;
    let target = Target::Servers { servers: body.servers.take().unwrap_or_default() };
    hand_in(&state, &place, body.into_request(target, Operation::Create), waits).await
}

/// Delete servers of a settings file
///
/// Only those that are named.
#[utoipa::path(
    post, path = "/workflows/servers/delete", operation_id = "deleteServers", tag = "workflows",
    params(("Idempotency-Key" = Option<String>, Header, description = "As idempotency_key in the body.")),
    request_body = DeleteServersRequest,
    responses(
        (status = 202, description = "The workflow.", body = Envelope<words::TaskId>),
        (status = 200, description = "With wait: how it ended.", body = Envelope<TaskView>),
    ),
    extensions(("x-request" = json!("Provision")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn delete_servers(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    uri: Uri,
    Sent(mut body): Sent<DeleteServersRequest>,
) -> Result<Response, ApiError> {
    let waits = body.wait;
    body.idempotency_key = key(&uri, &headers, body.idempotency_key.take())?;
    let target = Target::Servers { servers: std::mem::take(&mut body.servers) };
    hand_in(&state, &place, body.into_request(target, Operation::Delete), waits).await
}

/// Create or verify a taskserv
///
/// With what it depends on first, on all servers of the settings file that have it, or on some of them.
#[utoipa::path(
    post, path = "/workflows/taskserv/create", operation_id = "createTaskserv", tag = "workflows",
    params(("Idempotency-Key" = Option<String>, Header, description = "As idempotency_key in the body.")),
    request_body = TaskservRequest,
    responses(
        (status = 202, description = "The workflow.", body = Envelope<words::TaskId>),
        (status = 200, description = "With wait: how it ended.", body = Envelope<TaskView>),
    ),
    extensions(("x-request" = json!("Provision")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn create_taskserv(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    uri: Uri,
    Sent(mut body): Sent<TaskservRequest>,
) -> Result<Response, ApiError> {
    let waits = body.wait;
    body.idempotency_key = key(&uri, &headers, body.idempotency_key.take())?;
    let operation = body.operation.into();
    let target = Target::Taskserv {
        taskserv: std::mem::take(&mut body.taskserv),
        servers: body.servers.take().unwrap_or_default(),
    };
    hand_in(&state, &place, body.into_request(target, operation), waits).await
}

/// Create, verify or delete a cluster
///
/// Servers in parallel, then the taskservs on them in the order of what they depend on.
#[utoipa::path(
    post, path = "/workflows/cluster/create", operation_id = "createCluster", tag = "workflows",
    params(("Idempotency-Key" = Option<String>, Header, description = "As idempotency_key in the body.")),
    request_body = ClusterRequest,
    responses(
        (status = 202, description = "The workflow.", body = Envelope<words::TaskId>),
        (status = 200, description = "With wait: how it ended.", body = Envelope<TaskView>),
    ),
    extensions(("x-request" = json!("Provision")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn create_cluster(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    uri: Uri,
    Sent(mut body): Sent<ClusterRequest>,
) -> Result<Response, ApiError> {
    let waits = body.wait;
    body.idempotency_key = key(&uri, &headers, body.idempotency_key.take())?;
    let target = Target::Cluster { cluster_type: std::mem::take(&mut body.cluster_type) };
    let operation = body.operation;
    hand_in(&state, &place, body.into_request(target, operation), waits).await
}

/// The key of a submission, from its body or from the header, once its query is known to be empty.
pub(crate) fn key(
    uri: &Uri,
    headers: &HeaderMap,
    in_body: Option<String>,
) -> Result<Option<String>, ApiError> {
    Parameters::of(uri).finish()?;
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let in_header = match (values.next(), values.next()) {
        (None, _) => return Ok(in_body),
        (Some(value), None) => value.to_str().ok().filter(|key| !key.is_empty()),
        (Some(_), Some(_)) => None,
    };
    let in_header = in_header
        .ok_or_else(|| ApiError::malformed("Idempotency-Key must come once, and be visible ASCII"))?
        .to_owned();
    match in_body.filter(|in_body| *in_body != in_header) {
        None => Ok(Some(in_header)),
        Some(other) => Err(ApiError::malformed(format!(
            "the body has another idempotency key, '{other}', than the header Idempotency-Key, '{in_header}'"
        ))
        .with_detail("field", "idempotency_key")),
    }
}

/// Submits work, and waits for its end where that is asked for. There must be a place to wait before
/// anything is submitted.
async fn hand_in<C: Call<Reply = Submitted>>(
    state: &AppState,
    place: &Place,
    work: C,
    waits: bool,
) -> Result<Response, ApiError> {
    let place = waits.then(|| place.for_long(state)).transpose()?;
    let Submitted { id, tasks, existed, name: _ } = state.change(work).await?;
    let mut response = match (place, id) {
        (Some(place), Some(id)) => {
            let task = wait::for_one(state, &place, id).await.map_err(ApiError::of_what_may_be_done)?;
            Envelope::new(Finished::One(Box::new(task.into()))).into_response()
        }
        (Some(place), None) => {
            let ids = tasks.iter().map(|task| task.id).collect();
            let tasks = wait::for_all(state, &place, ids).await.map_err(ApiError::of_what_may_be_done)?;
            let tasks = tasks.into_iter().map(TaskView::from).collect();
            Envelope::new(Finished::Several(FinishedTasks { tasks })).into_response()
        }
        (None, Some(id)) => {
            let location = HeaderValue::try_from(format!("/tasks/{id}"));
            let mut response = (StatusCode::ACCEPTED, Envelope::new(Accepted::One(id))).into_response();
            response.headers_mut().extend(location.ok().map(|path| (header::LOCATION, path)));
            response
        }
        (None, None) => {
            let tasks = tasks.into_iter().map(|SubmittedTask { id, name }| AcceptedTask { id, name });
            let tasks = AcceptedTasks { tasks: tasks.collect() };
            (StatusCode::ACCEPTED, Envelope::new(Accepted::Several(tasks))).into_response()
        }
    };
    if existed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}
