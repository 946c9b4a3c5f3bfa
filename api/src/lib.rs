//! REST front door: a router over anything that implements the protocol's service trait.
//!
//! It knows no storage, no Docker and no engine. It turns requests into questions of the protocol and
//! answers into envelopes, `{"success": bool, "data": …, "error": …}`.
//!
//! Without tokens it serves only connections whose other end belongs to the engine's user or to root,
//! and only requests that name this engine as their host: so neither another user of the machine nor a
//! page in a browser can use it.
//!
//! - [`envelope`]: what every answer looks like; [`view`]: what a task looks like.
//! - [`guard`]: who may ask. [`owner`]: whose the other end of a connection is.
//! - [`health`], [`tasks`]: the endpoints; [`query`]: what may stand after their `?`.
//! - [`server`]: connections and the end of them; [`limits`]: how much anybody may take.

pub mod envelope;
pub mod guard;
pub mod health;
pub mod limits;
pub mod owner;
pub mod query;
pub mod server;
pub mod tasks;
pub mod view;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use orchestrator_protocol::request::Call;
use orchestrator_protocol::service::{Caller, Service};
use tokio::sync::Semaphore;
use tower_http::trace::TraceLayer;

use crate::envelope::ApiError;
use crate::guard::Names;
use crate::limits::Limits;
pub use crate::server::{AddressError, check_address, serve};

/// What every endpoint has at hand. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    shared: Arc<Shared>,
}

struct Shared {
    service: Arc<dyn Service>,
    /// Under which names requests may ask.
    names: Names,
    limits: Limits,
    /// Places for requests that are under way.
    places: Semaphore,
}

impl AppState {
    /// The state around a service that is reached at `address`.
    pub fn new(service: Arc<dyn Service>, address: SocketAddr, limits: Limits) -> Self {
        let places = Semaphore::new(limits.requests);
        Self { shared: Arc::new(Shared { service, names: Names::of(address), limits, places }) }
    }

    /// Asks a question that the engine answers without waiting for anybody, on behalf of whoever the
    /// guard let in.
    async fn ask<C: Call>(&self, call: C) -> Result<C::Reply, ApiError> {
        let answer = self.shared.service.call(&Caller::LoopbackOwner, call.into());
        match tokio::time::timeout(self.shared.limits.answer, answer).await {
            Ok(response) => C::reply(response?).map_err(|error| ApiError::internal(error.to_string())),
            Err(_) => Err(ApiError::unavailable("the engine took too long to answer")),
        }
    }
}

/// All endpoints. Each request must carry a [`guard::Peer`], which [`serve`] adds; without one it is
/// refused.
pub fn router(state: AppState) -> Router {
    let body_bytes = state.shared.limits.body_bytes;
    Router::new()
        .route("/health", get(health::health))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::get))
        .fallback(async |uri: Uri| ApiError::not_found(format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ApiError::method_not_allowed(format!("{} does not take {method}", uri.path()))
        })
        .layer(from_fn_with_state(state.clone(), guard::admit))
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(TraceLayer::new_for_http())
        .with_state(state)
}
