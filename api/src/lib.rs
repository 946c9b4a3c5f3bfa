//! REST front door: a router over anything that implements the protocol's service trait.
//!
//! It knows no storage, no Docker and no engine. It turns requests into questions of the protocol and
//! answers into envelopes, `{"success": bool, "data": …, "error": …}`.
//!
//! Without tokens it serves only connections whose other end belongs to the engine's user or to root,
//! and only requests that name this engine as their host: so neither another user of the machine nor a
//! page in a browser can use it.
//!
//! - [`openapi`]: the one table of routes, and the document that is made from it; [`words`]: the
//!   protocol's own words in it.
//! - [`envelope`]: what every answer looks like; [`view`]: what a task looks like.
//! - [`guard`]: who may ask. [`owner`]: whose the other end of a connection is.
//! - [`health`], [`status`], [`engine`]: endpoints about the engine; [`tasks`], [`explain`], [`logs`]:
//!   about tasks; [`workflows`], [`submission`]: work that is handed in; [`events`]: what happens;
//!   [`environments`]: test environments; [`storage`]: where the records are, and moving them.
//! - [`query`]: what may stand after the `?` of a path; [`body`]: what may be sent; [`output`]: how what
//!   was printed is answered.
//! - [`state`]: what every endpoint has at hand; [`server`]: connections and the end of them;
//!   [`limits`]: how much anybody may take.

pub mod body;
pub mod engine;
pub mod envelope;
pub mod environments;
pub mod events;
pub mod explain;
pub mod guard;
pub mod health;
pub mod limits;
pub mod logs;
pub mod openapi;
pub mod output;
pub mod owner;
pub mod query;
pub mod server;
mod sse;
pub mod state;
pub mod status;
pub mod storage;
pub mod submission;
pub mod tasks;
pub mod view;
mod wait;
pub mod words;
pub mod workflows;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use tower_http::trace::{DefaultOnFailure, TraceLayer};
use tracing::Level;

use crate::envelope::ApiError;
pub use crate::server::{AddressError, check_address, serve};
pub use crate::state::AppState;

/// All endpoints. Each request must carry a [`guard::Peer`], which [`serve`] adds; without one it is
/// refused.
pub fn router(state: AppState) -> Router {
    let body_bytes = state.limits().body_bytes;
    openapi::routes()
        .fallback(async |uri: Uri| ApiError::not_found(format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ApiError::method_not_allowed(format!("{} does not take {method}", uri.path()))
        })
        .layer(from_fn_with_state(state.clone(), guard::admit))
        .layer(DefaultBodyLimit::max(body_bytes))
        // A 503 is an answer like any other: who made a fault of the engine has logged it.
        .layer(TraceLayer::new_for_http().on_failure(DefaultOnFailure::new().level(Level::DEBUG)))
        .with_state(state)
}
