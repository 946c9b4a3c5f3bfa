//! `GET /openapi.json`, and the one table of routes from which both the router and that document come.
//!
//! Each operation says with `x-request` which question of the protocol it asks (`Request::NAMES`,
//! `Subscription::NAMES`), with `x-request-when-waiting` which one besides where it waits; only the
//! document itself asks nothing. What every operation can answer when it fails is added here, by rules,
//! not repeated at each.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::http::Uri;
use axum::{Json, Router};
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::schema::{ArrayItems, Object, Schema};
use utoipa::openapi::{Content, Info, License, OpenApi as Document, Ref, RefOr, Response, Server};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::envelope::{ApiError, Failure};
use crate::query::Parameters;
use crate::state::AppState;
use crate::{engine, environments, events, health, logs, status, storage, tasks, workflows};

/// What the document says of all answers.
const DESCRIPTION: &str = "Every answer is {\"success\", \"data\", \"error\"}: `data` is the answer, or `error` says what was wrong, \
with `code` and `details` beside it. Only streams, bare lines and this document are not in that shape. A \
parameter or a field that an operation does not have is refused by its name.";

/// What may take long, or goes on, whether or not it is asked to.
const TAKES_LONG: [&str; 5] = ["Logs", "Events", "EnvironmentLogs", "InjectFault", "PrunePrepared"];

/// Every endpoint.
fn endpoints() -> OpenApiRouter<AppState> {
    OpenApiRouter::default()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(status::status))
        .routes(routes!(status::doctor))
        .routes(routes!(engine::stop))
        .routes(routes!(engine::pause))
        .routes(routes!(engine::resume))
        .routes(routes!(tasks::list))
        .routes(routes!(tasks::get))
        .routes(routes!(logs::logs))
        .routes(routes!(tasks::explain))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(workflows::submit))
        .routes(routes!(workflows::create_servers))
        .routes(routes!(workflows::delete_servers))
        .routes(routes!(workflows::create_taskserv))
        .routes(routes!(workflows::create_cluster))
        .routes(routes!(events::listen))
        .routes(routes!(environments::create))
        .routes(routes!(environments::list))
        .routes(routes!(environments::get, environments::remove))
        .routes(routes!(environments::run))
        .routes(routes!(environments::logs::logs))
        .routes(routes!(environments::inject_fault))
        .routes(routes!(environments::topologies))
        .routes(routes!(environments::prune))
        .routes(routes!(storage::report))
        .routes(routes!(storage::validate))
        .routes(routes!(storage::start, storage::list))
        .routes(routes!(storage::get))
        .routes(routes!(storage::cancel))
        .routes(routes!(openapi))
}

/// The router of all endpoints.
pub(crate) fn routes() -> Router<AppState> {
    endpoints().split_for_parts().0
}

/// The document.
pub fn document() -> &'static Document {
    static DOCUMENT: LazyLock<Document> = LazyLock::new(describe);
    &DOCUMENT
}

/// This document
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenapi", tag = "engine",
    responses((status = 200, description = "An OpenAPI document.", body = Object)),
)]
async fn openapi(uri: Uri) -> Result<Json<&'static Document>, ApiError> {
    Parameters::of(&uri).finish()?;
    Ok(Json(document()))
}

fn describe() -> Document {
    let mut document = endpoints().split_for_parts().1;
    document.info = Info::builder()
        .title("Orchestrator")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(License::new("MIT")))
        .build();
    document.servers = Some(vec![Server::new("/")]);
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            add_failures(operation);
        }
    }
    let components = document.components.get_or_insert_default();
    components.schemas.insert(Failure::name().into_owned(), Failure::schema());
    let names: BTreeSet<String> = components.schemas.keys().cloned().collect();
    for (name, schema) in &mut components.schemas {
        if let RefOr::T(Schema::Object(envelope)) = schema
            && let Some((_, data)) = name.split_once('_')
        {
            refer_to_data(envelope, data, &names);
        }
        // What is sent may leave out what has a default; what is answered leaves out nothing.
        if !name.ends_with("Request")
            && let RefOr::T(Schema::Object(object)) = schema
        {
            object.required = object.properties.keys().cloned().collect();
        }
    }
    document
}

/// Lets the data of an envelope be the schema of that name, where it was written out.
fn refer_to_data(envelope: &mut Object, data: &str, names: &BTreeSet<String>) {
    match envelope.properties.get_mut("data") {
        Some(RefOr::T(Schema::Array(array))) => {
            let item = data.strip_prefix("Vec_").unwrap_or(data);
            if names.contains(item) {
                array.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(item).into()));
            }
        }
        Some(schema) if names.contains(data) => *schema = Ref::from_schema_name(data).into(),
        Some(_) | None => {}
    }
}

/// Adds how an operation can fail.
fn add_failures(operation: &mut Operation) {
    let request = operation.extensions.as_ref().and_then(|said| said.get("x-request")).cloned();
    let Some(request) = request.as_ref().and_then(|name| name.as_str()) else { return };
    let has_body = operation.request_body.is_some();
    let waits = operation.extensions.as_ref().is_some_and(|said| said.contains_key("x-request-when-waiting"));
    let names_one = operation
        .parameters
        .as_ref()
        .is_some_and(|all| all.iter().any(|one| one.parameter_in == ParameterIn::Path));
    let failures = [
        (400, "The request cannot be read: its query, its path or its JSON.", true),
        (403, "Who asks may not, or the request is meant for another host.", true),
        (404, "There is no such task, environment or migration.", names_one),
        (408, "The body took too long to come.", has_body),
        (409, "It contradicts what is there.", has_body || request == "CleanEnvironment"),
        (413, "The body is too large.", has_body),
        (415, "The body is not said to be JSON.", has_body),
        (422, "The body can be read and means nothing.", has_body),
        (429, "Too many requests wait already.", waits || TAKES_LONG.contains(&request)),
        (500, "The engine failed.", true),
        (503, "Not now; Retry-After says when to ask again.", true),
    ];
    for (status, description, _) in failures.into_iter().filter(|(.., applies)| *applies) {
        let content = Content::new(Some(Ref::from_schema_name(Failure::name())));
        let failure = Response::builder().description(description).content("application/json", content);
        operation.responses.responses.insert(status.to_string(), failure.build().into());
    }
}
