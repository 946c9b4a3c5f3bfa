//! What the streams of events have in common (server-sent events).
//!
//! Each event has a name and, as data, one line of JSON. A stream that cannot be told to its end says so
//! with `event: failure`, whose data is an answer that failed: of an engine that stops, with the code
//! `unavailable`. Whoever reads slowly holds up nobody: what it misses is told as such, or waits.

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Serialize;

use crate::envelope::{ApiError, Failure};
use crate::state::AppState;

/// An answer that goes on, with a comment now and then while nothing happens.
pub(crate) fn answer(
    state: &AppState,
    events: impl Stream<Item = Result<Event, axum::Error>> + Send + 'static,
) -> Response {
    let keep_alive = KeepAlive::new().interval(state.limits().keep_alive);
    Sse::new(events).keep_alive(keep_alive).into_response()
}

/// An event with a name.
pub(crate) fn event(name: &str, data: &impl Serialize) -> Result<Event, axum::Error> {
    Event::default().event(name).json_data(data)
}

/// The last event of a stream that is not told to its end.
pub(crate) fn failure(error: impl Into<ApiError>) -> Result<Event, axum::Error> {
    event("failure", &Failure::from(error.into()))
}
