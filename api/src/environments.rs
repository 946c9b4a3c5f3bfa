//! Test environments: created, run, looked at, disturbed, removed; topologies and prepared images.
//!
//! Creating, running and removing are work that is queued. The answer is 202 with the environment and the
//! workflow or task that does it; with `wait` it is 200 with the environment once that has ended, whatever
//! its status. As with all work that is handed in, a client that goes away calls nothing off.
//!
//! - [`request`], [`config`], [`topology`], [`run`]: what is sent; [`view`]: what is answered;
//!   [`logs`]: what the nodes print.

pub mod config;
pub mod logs;
pub mod request;
pub mod run;
mod same;
pub mod topology;
pub mod view;

use axum::Extension;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use orchestrator_protocol::environment::{
    CleanEnvironment, Environment, EnvironmentId, EnvironmentStatus, EnvironmentTask, GetEnvironment,
    InjectFault, ListEnvironments, ListTopologies, PrunePrepared, RunEnvironment,
};
use orchestrator_protocol::junit::junit;
use orchestrator_protocol::request::Call;

use self::request::EnvironmentBody;
use self::run::{FaultBody, RunBody};
use self::view::{EnvironmentView, PrunedView, QueuedView, TopologyView};
use crate::body::{Sent, SentOrDefault};
use crate::engine::Nothing;
use crate::envelope::{ApiError, Envelope, prefers};
use crate::query::{Parameters, flag, in_path, several, text};
use crate::state::{AppState, Place};
use crate::workflows::{REPLAYED, key};
use crate::{wait, words};

const XML: HeaderValue = HeaderValue::from_static("application/xml");

/// The environment that a path names.
#[derive(Debug, Clone, Copy)]
pub struct Named(pub EnvironmentId);

impl FromRequestParts<AppState> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        in_path(parts, state).await.map(Self)
    }
}

/// Create a test environment
///
/// `config.type` says which kind: `single_taskserv`, `server_simulation` or `cluster_topology`. With
/// `auto_start` its tests run as soon as it is ready, with `auto_cleanup` it is removed when they have
/// passed; both are part of what `wait` waits for.
#[utoipa::path(
    post, path = "/test/environments/create", operation_id = "createTestEnvironment", tag = "test",
    params(("Idempotency-Key" = Option<String>, Header, description = "As idempotency_key in the body.")),
    request_body = EnvironmentBody,
    responses(
        (status = 202, description = "The environment, and what creates it.", body = Envelope<QueuedView>),
        (status = 200, description = "With wait: the environment as it is then.",
            body = Envelope<EnvironmentView>),
    ),
    extensions(("x-request" = json!("CreateEnvironment")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn create(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    uri: Uri,
    Sent(mut body): Sent<EnvironmentBody>,
) -> Result<Response, ApiError> {
    let waits = body.wait;
    body.idempotency_key = key(&uri, &headers, body.idempotency_key.take())?;
    queue(&state, &place, body.into_request()?, waits).await
}

/// Test environments, newest first
#[utoipa::path(
    get, path = "/test/environments", operation_id = "listTestEnvironments", tag = "test",
    params(
        ("status" = Option<String>, Query,
            description = "Only these states, in any case, with commas between them; all but cleaned where it is left out. May come several times."),
        ("infra" = Option<String>, Query, description = "Only those of this infra."),
    ),
    responses((status = 200, description = "All of them.", body = Envelope<Vec<EnvironmentView>>)),
    extensions(("x-request" = json!("ListEnvironments"))),
)]
pub async fn list(
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Envelope<Vec<EnvironmentView>>, ApiError> {
    let mut query = Parameters::of(&uri);
    let statuses = query.all("status", several::<EnvironmentStatus>).into_iter().flatten().collect();
    let infra = query.one("infra", text);
    query.finish()?;
    let found = state.ask(ListEnvironments { statuses, infra }).await.map_err(ApiError::in_query)?;
    Ok(Envelope::new(found.into_iter().map(EnvironmentView::from).collect()))
}

/// One test environment
///
/// With `Accept: application/xml` the results of its newest run as JUnit XML.
#[utoipa::path(
    get, path = "/test/environments/{id}", operation_id = "getTestEnvironment", tag = "test",
    params(("id" = inline(words::EnvironmentId), Path, description = "The environment.")),
    responses((status = 200, description = "The environment, with its nodes and results.", content(
        (Envelope<EnvironmentView> = "application/json"),
        (String = "application/xml"),
    ))),
    extensions(("x-request" = json!("GetEnvironment"))),
)]
pub async fn get(
    State(state): State<AppState>,
    Named(id): Named,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, ApiError> {
    Parameters::of(&uri).finish()?;
    let environment = state.ask(GetEnvironment { id }).await?;
    Ok(match prefers(&headers, "application/xml") {
        true => ([(header::CONTENT_TYPE, XML)], junit(&environment)).into_response(),
        false => shown(*environment),
    })
}

/// Run the tests of an environment
///
/// The verify steps of all its taskservs on all nodes, and what the body says.
#[utoipa::path(
    post, path = "/test/environments/{id}/run", operation_id = "runTestEnvironment", tag = "test",
    params(("id" = inline(words::EnvironmentId), Path, description = "The environment.")),
    request_body = Option<RunBody>,
    responses(
        (status = 202, description = "The environment, and what runs its tests.", body = Envelope<QueuedView>),
        (status = 200, description = "With wait: the environment as it is then.",
            body = Envelope<EnvironmentView>),
    ),
    extensions(("x-request" = json!("RunEnvironment")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn run(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    Named(id): Named,
    uri: Uri,
    SentOrDefault(body): SentOrDefault<RunBody>,
) -> Result<Response, ApiError> {
    Parameters::of(&uri).finish()?;
    let waits = body.wait;
    let work = RunEnvironment { id, run: body.into_options(), cwd: None };
    queue(&state, &place, work, waits).await.map_err(|error| error.without("run."))
}

/// Remove a test environment
///
/// With everything in it. What is under way in it is called off.
#[utoipa::path(
    delete, path = "/test/environments/{id}", operation_id = "deleteTestEnvironment", tag = "test",
    params(
        ("id" = inline(words::EnvironmentId), Path, description = "The environment."),
        ("wait" = Option<bool>, Query, description = "Answer when it is gone."),
    ),
    responses(
        (status = 202, description = "The environment, and what removes it.", body = Envelope<QueuedView>),
        (status = 200, description = "With wait: the environment as it is then.",
            body = Envelope<EnvironmentView>),
    ),
    extensions(("x-request" = json!("CleanEnvironment")), ("x-request-when-waiting" = json!("Watch"))),
)]
pub async fn remove(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    Named(id): Named,
    uri: Uri,
) -> Result<Response, ApiError> {
    let mut query = Parameters::of(&uri);
    let waits = query.one("wait", flag).unwrap_or(false);
    query.finish()?;
    queue(&state, &place, CleanEnvironment { id }, waits).await
}

/// Do something to the nodes of an environment
///
/// Now, and answered when it is done, however long that takes: a node that is restarted is up again.
#[utoipa::path(
    post, path = "/test/environments/{id}/faults", operation_id = "injectFault", tag = "test",
    params(("id" = inline(words::EnvironmentId), Path, description = "The environment.")),
    request_body = FaultBody,
    responses((status = 200, description = "The environment after it.", body = Envelope<EnvironmentView>)),
    extensions(("x-request" = json!("InjectFault"))),
)]
pub async fn inject_fault(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    Named(id): Named,
    uri: Uri,
    Sent(body): Sent<FaultBody>,
) -> Result<Response, ApiError> {
    Parameters::of(&uri).finish()?;
    let place = place.for_long(&state)?;
    let fault = body.into_fault();
    Ok(shown(*state.change_slowly(&place, InjectFault { id, fault }).await?))
}

/// Topologies by name
///
/// The engine's own, and those in `topologies/*.toml` under its working directory. What is in `topology`
/// can be sent as such.
#[utoipa::path(
    get, path = "/test/topologies", operation_id = "listTopologies", tag = "test",
    responses((status = 200, description = "All of them.", body = Envelope<Vec<TopologyView>>)),
    extensions(("x-request" = json!("ListTopologies"))),
)]
pub async fn topologies(
    State(state): State<AppState>,
    uri: Uri,
) -> Result<Envelope<Vec<TopologyView>>, ApiError> {
    Parameters::of(&uri).finish()?;
    let found = state.ask(ListTopologies { cwd: None }).await?;
    Ok(Envelope::new(found.into_iter().map(TopologyView::from).collect()))
}

/// Remove the prepared images that nothing uses
#[utoipa::path(
    post, path = "/test/images/prune", operation_id = "prunePreparedImages", tag = "test",
    request_body = Option<Nothing>,
    responses((status = 200, description = "What was removed.", body = Envelope<PrunedView>)),
    extensions(("x-request" = json!("PrunePrepared"))),
)]
pub async fn prune(
    State(state): State<AppState>,
    Extension(place): Extension<Place>,
    uri: Uri,
    SentOrDefault(Nothing {}): SentOrDefault<Nothing>,
) -> Result<Envelope<PrunedView>, ApiError> {
    Parameters::of(&uri).finish()?;
    let place = place.for_long(&state)?;
    Ok(Envelope::new(state.change_slowly(&place, PrunePrepared {}).await?.into()))
}

fn shown(environment: Environment) -> Response {
    Envelope::new(EnvironmentView::from(environment)).into_response()
}

/// Queues work on an environment, and waits for its end where that is asked for. There must be a place to
/// wait before anything is queued.
async fn queue<C: Call<Reply = EnvironmentTask>>(
    state: &AppState,
    place: &Place,
    work: C,
    waits: bool,
) -> Result<Response, ApiError> {
    let place = waits.then(|| place.for_long(state)).transpose()?;
    let EnvironmentTask { environment: id, task, existed } = state.change(work).await?;
    let mut response = match place {
        Some(place) => {
            let ended = async {
                wait::for_one(state, &place, task).await?;
                state.ask(GetEnvironment { id }).await
            };
            let of_which = |error: ApiError| error.with_detail("environment", id.to_string());
            shown(*ended.await.map_err(of_which)?)
        }
        None => {
            let queued = Envelope::new(QueuedView { environment: id, task });
            let mut response = (StatusCode::ACCEPTED, queued).into_response();
            let location = HeaderValue::try_from(format!("/test/environments/{id}"));
            response.headers_mut().extend(location.ok().map(|path| (header::LOCATION, path)));
            response
        }
    };
    if existed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}
