// NOTE FOR THE API HELPER (19:25): the lead wrote this crate in the meantime and your files collided with it.
// The lead version stays. Your files are in /tmp/helperapi. Please do not restore your sources: review these ones,
// improve them in small edits where yours were better, and write the tests from your brief against them
// (api/tests/*.rs and in-module). Remove this note when you have read it.
//! REST front door: a router over anything that implements the protocol's service trait.
//!
//! It knows no storage, no Docker and no engine. It turns requests into questions of the protocol and
//! answers into envelopes, `{"success": bool, "data": …, "error": …}`.
//!
//! Without tokens it serves only connections whose other end belongs to the engine's user or to root,
//! and only requests that name a loopback host: so neither another user of the machine nor a page in a
//! browser can use it.
//!
//! - [`envelope`]: what every answer looks like; [`view`]: what a task looks like.
//! - [`guard`]: who may ask. [`owner`]: whose the other end of a connection is.
//! - [`health`], [`tasks`]: the endpoints. [`server`]: connections, limits and the end of them.

pub mod envelope;
pub mod guard;
pub mod health;
pub mod owner;
pub mod server;
pub mod tasks;
pub mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::routing::get;
use orchestrator_protocol::service::{Caller, Service};
use tower_http::trace::TraceLayer;

use crate::envelope::ApiError;
pub use crate::server::{AddressError, check_address, serve};

/// The largest request body, in bytes.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// What every endpoint has at hand.
#[derive(Clone)]
pub struct AppState {
    service: Arc<dyn Service>,
}

impl AppState {
    /// The state around a service.
    pub fn new(service: Arc<dyn Service>) -> Self {
        Self { service }
    }

    /// Asks a question on behalf of whoever the guard let in.
    async fn ask<C: orchestrator_protocol::request::Call>(&self, call: C) -> Result<C::Reply, ApiError> {
        let response = self.service.call(&Caller::LoopbackOwner, call.into()).await?;
        C::reply(response).map_err(|error| ApiError::internal(error.to_string()))
    }
}

/// All endpoints. Each request must carry a [`guard::Peer`], which [`serve`] adds.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::get))
        .fallback(async |uri: Uri| ApiError::not_found(format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            ApiError::method_not_allowed(format!("{} does not take {method}", uri.path()))
        })
        .layer(axum::middleware::from_fn(guard::admit))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TraceLayer::new_for_http())
        .with_state(state)
}
